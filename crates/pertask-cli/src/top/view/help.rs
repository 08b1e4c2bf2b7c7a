//! The help that covers the page.

use pertask_text::text::cut_end;
use ratatui::text::Line;

use super::palette::Palette;

/// What the keys do, and what the columns mean. It fits 80 columns and 24 lines.
const HELP: &str = "\
Keys
  Up Down PgUp PgDn End  move        Home   stay on top
  Enter  tasks of a site, and then one task        s  hottest functions of a row
  t  spawn tree   l  labels   w  workers   i  lives    Esc  unfilter, or go back
  /  filter by name or file       p  pause         q  quit      Ctrl-L  redraw
  <  >  sort by another column    r  reverse the order
  To sort by one column: C CPU%  I INCL%  H history  P polls  U CPU/poll
  M max poll  B blocked  S started  L live  W waits  T total CPU  N name  F site
  E life  R ready  A waiting
Columns
  CPU%      CPU time of these tasks since the last update; 100 is one CPU
  INCL%     the same, with all tasks that these have spawned
  HISTORY   CPU% at the last updates; the highest is full, if it is 10 or more
  MAX POLL  the longest poll since top began; CPU/POLL is that of an average one
  BLOCKED   % of a worker that polls hold without a CPU: blocked, or queued
  LIFE      the last interval: █ on CPU, ▓ blocked in a poll, ▒ ready,
            ░ waiting, = in a task inside, - new, · unknown
  WAITING   how many tasks wait at a time; with lives, so are BLOCKED and READY
  START/S   tasks started a second; LIVE is how many are alive
  WAKE P99  99 of 100 waits from wake to poll were no longer, since top began
Above
  A worker's bar: █ in tasks, ▒ outside tasks (scheduler, I/O), · idle
  A rate that is not known is -: the row is new, or its counters began anew.
Any key closes this help.";

/// Returns the lines, each at most so many columns wide.
pub fn lines(max: usize, palette: Palette) -> Vec<Line<'static>> {
    let line = |line: &str| {
        let is_title = !line.starts_with(' ');
        let text = cut_end(line, max);
        if is_title { Line::styled(text, palette.title()) } else { Line::raw(text) }
    };
    HELP.lines().map(line).collect()
}
