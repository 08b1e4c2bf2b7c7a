//! What could not be counted, in few words. A report as a table has more of them.

use pertask::Lost;
use pertask_text::human::counted;

/// A line, if anything was lost.
pub fn in_few_words(lost: &Lost) -> Option<String> {
    let losses = [
        (lost.tasks_without_data, "task", "without data"),
        (lost.tasks_without_site, "task", "without a site"),
        (lost.tasks_without_path, "task", "without a spawn path"),
        (lost.label_sets_without_place, "label set", "without a place"),
        (lost.polls_untracked, "poll", "not followed"),
        (lost.polls_out_of_order, "poll", "out of order"),
        (lost.turns_without_counters, "turn", "without counters"),
        (lost.workers_without_counters, "worker", "without counters"),
    ];
    let losses = losses.iter().filter(|(n, ..)| *n > 0);
    let losses: Vec<_> =
        losses.map(|(n, one, what)| format!("{} {what}", counted(*n, one))).collect();
    (!losses.is_empty()).then(|| format!("lost: {}", losses.join(", ")))
}
