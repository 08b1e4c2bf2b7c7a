//! The demo's routes, each of which uses a CPU differently, and the answers that clients expect.
//!
//! The work is real and its results are sent, so the compiler cannot remove it.

use std::{thread, time::Duration};

use axum::{Router, http::StatusCode, response::Html, routing::get};
use pertask::tokio::JoinSet;

/// A route, as clients see it.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// How long a client pauses between an answer and its next request.
    pub think: Duration,
    /// Returns the expected answer. This may take some milliseconds.
    pub answer: fn() -> String,
}

/// Every route that clients call.
///
/// The clients' pauses leave CPU time to the other routes, even on a machine with two CPUs.
pub const ROUTES: [Route; 5] = [
    Route { path: "/hash", think: Duration::from_millis(5), answer: hashed },
    Route { path: "/render", think: Duration::from_millis(5), answer: invoice },
    Route { path: "/wait", think: Duration::from_millis(5), answer: waited },
    Route {
        path: "/fanout",
        think: Duration::from_millis(10),
        answer: || PRIMES_BELOW_LIMIT.to_string(),
    },
    Route { path: "/blocking", think: Duration::from_millis(100), answer: blocked },
];

/// Returns the routes with their handlers.
pub fn router() -> Router {
    same_router().route("/fanout", get(fanout))
}

/// Returns the routes of a service that knows nothing of pertask.
pub fn plain_router() -> Router {
    same_router().route("/fanout", get(plain_fanout))
}

fn same_router() -> Router {
    Router::new()
        .route("/", get(index))
        .route("/hash", get(hash))
        .route("/render", get(render))
        .route("/wait", get(wait))
        .route("/blocking", get(blocking))
}

/// Lists the routes for people who open the printed address in a browser.
async fn index() -> Html<String> {
    let links = ROUTES.map(|Route { path, .. }| format!("<li><a href=\"{path}\">{path}</a></li>"));
    Html(format!("<h1>pertask demo</h1><ul>{}</ul>", links.concat()))
}

/// Computes and does nothing else.
async fn hash() -> String {
    hashed()
}

/// Allocates memory for many small strings.
async fn render() -> Html<String> {
    Html(invoice())
}

/// Waits as async code should, so that its thread is free meanwhile.
async fn wait() -> String {
    tokio::time::sleep(Duration::from_millis(20)).await;
    waited()
}

/// Shares its work among child tasks. They have their own row in the report, with the line that spawns them.
async fn fanout() -> Result<String, StatusCode> {
    let mut children = JoinSet::new();
    for part in 0..PARTS {
        children.spawn(async move { primes_in_part(part) });
    }
    let mut total = 0;
    while let Some(count) = children.join_next().await {
        total += count.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok(total.to_string())
}

/// Shares its work among tasks of tokio's own.
async fn plain_fanout() -> Result<String, StatusCode> {
    let mut children = tokio::task::JoinSet::new();
    for part in 0..PARTS {
        children.spawn(async move { primes_in_part(part) });
    }
    let mut total = 0;
    while let Some(count) = children.join_next().await {
        total += count.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok(total.to_string())
}

/// Blocks its thread without using CPU time, so that every task that waits for the thread is blocked too.
///
/// This is a mistake that a report exposes.
async fn blocking() -> String {
    thread::sleep(BLOCKED_FOR);
    blocked()
}

/// How long `/blocking` blocks.
const BLOCKED_FOR: Duration = Duration::from_millis(15);

fn waited() -> String {
    "waited".to_owned()
}

fn blocked() -> String {
    "blocked".to_owned()
}

/// Computes the way a password hash does, but without its security.
fn hashed() -> String {
    const ROUNDS: u32 = 120_000;
    let mut digest = fnv1a(b"correct horse battery staple");
    for _ in 0..ROUNDS {
        digest = fnv1a(&digest.to_le_bytes()) ^ digest.rotate_left(17);
    }
    format!("{digest:016x}")
}

/// The 64-bit hash of Fowler, Noll and Vo.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns an invoice of a thousand lines, built from many small strings as most templates are.
fn invoice() -> String {
    let rows: Vec<String> = (1..=1000_u64).map(invoice_row).collect();
    format!("<table>{}</table>", rows.concat())
}

fn invoice_row(line: u64) -> String {
    let cents = line * 1999 % 10_007;
    let cells = [
        line.to_string(),
        format!("Article {line:04}"),
        format!("{}.{:02}", cents / 100, cents % 100),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr>{}</tr>", cells.concat())
}

/// The number below which `/fanout` counts the primes.
const LIMIT: usize = 200_000;
/// The number of child tasks for each request to `/fanout`.
const PARTS: usize = 4;
/// The number of those primes, from the literature.
const PRIMES_BELOW_LIMIT: usize = 17_984;

/// Counts the primes in one part of the numbers below [`LIMIT`], by sieving it.
fn primes_in_part(part: usize) -> usize {
    let length = LIMIT / PARTS;
    let first = part * length;
    let mut composite = vec![false; length];
    for divisor in (2..).take_while(|divisor| divisor * divisor < LIMIT) {
        let start = (divisor * divisor).max(first.next_multiple_of(divisor));
        for multiple in (start..first + length).step_by(divisor) {
            composite[multiple - first] = true;
        }
    }
    let below_two = 2_usize.saturating_sub(first);
    composite.iter().skip(below_two).filter(|composite| !**composite).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_has_its_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_parts_find_every_prime() {
        assert_eq!((0..PARTS).map(primes_in_part).sum::<usize>(), PRIMES_BELOW_LIMIT);
    }

    #[test]
    fn an_invoice_has_its_rows() {
        assert_eq!(invoice().matches("<tr>").count(), 1000);
        assert_eq!(invoice_row(1), "<tr><td>1</td><td>Article 0001</td><td>19.99</td></tr>");
    }
}
