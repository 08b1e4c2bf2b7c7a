//! What could not be counted, one sentence for each kind of loss.

use crate::report::Lost;
use pertask_text::human;

/// A kind of loss: how often, and what is said of one and of several.
type Loss = (u64, &'static str, &'static str);

/// A line for each kind of loss that there was.
pub(super) fn lines(lost: &Lost) -> impl Iterator<Item = String> + use<> {
    let losses = losses(lost).into_iter().filter(|(n, ..)| *n > 0);
    losses.map(|(n, one, several)| {
        let what = if n == 1 { one } else { several };
        format!("lost: {} {what}", human::count(n))
    })
}

fn losses(lost: &Lost) -> [Loss; 8] {
    let Lost {
        tasks_without_data,
        tasks_without_site,
        tasks_without_path,
        label_sets_without_place,
        polls_untracked,
        polls_out_of_order,
        turns_without_counters,
        workers_without_counters,
    } = *lost;
    [
        (
            tasks_without_data,
            "task got no data: its time is in “workers, outside tasks”",
            "tasks got no data: their time is in “workers, outside tasks”",
        ),
        (
            tasks_without_site,
            "task found no place in the table of sites: it is in the row “(other)”",
            "tasks found no place in the table of sites: they share the row “(other)”",
        ),
        (
            tasks_without_path,
            "task found no place in the tree of spawns: it is shown as spawned by no task",
            "tasks found no place in the tree of spawns: they are shown as spawned by no task",
        ),
        (
            label_sets_without_place,
            "set of labels found no place: its time is shown as without labels",
            "sets of labels found no place: their time is shown as without labels",
        ),
        (
            polls_untracked,
            "poll could not be followed: its time is in “workers, outside tasks”",
            "polls could not be followed: their time is in “workers, outside tasks”",
        ),
        (
            polls_out_of_order,
            "poll ended out of order, or on another thread: for some time it is unknown in which task it was",
            "polls ended out of order, or on another thread: for some time it is unknown in which task it was",
        ),
        (
            turns_without_counters,
            "turn of a task ran without counters: its events are not counted",
            "turns of tasks ran without counters: their events are not counted",
        ),
        (
            workers_without_counters,
            "worker has no counters: they could not be opened",
            "workers have no counters: they could not be opened",
        ),
    ]
}
