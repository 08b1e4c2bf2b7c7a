//! What the programs of the bench share. Each program is one run of some rows: it measures, prints its [`Row`]s, and ends.
//! `compare` runs all of them, in two builds.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod cpu_time;
mod in_turn;
mod quartiles;
mod row;

mod crowd;
mod turns;

pub use cpu_time::cpu_time_ns;
pub use crowd::Crowd;
pub use in_turn::medians_in_turn;
pub use quartiles::Quartiles;
pub use row::Row;
pub use turns::Turns;
