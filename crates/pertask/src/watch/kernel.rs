//! What the kernel says of a thread: whether it runs, how long it has waited for a CPU, and in which system call it is.

use std::fs;

/// Where a thread is that is blocked in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// The system call, or `None` in the kernel by another way, as by a page that is being read.
    pub(super) call: Option<i64>,
    pub(super) stack: u64,
    pub(super) instruction: u64,
}

/// Whether the thread runs, or could.
pub(super) fn may_run(thread: u32) -> Option<bool> {
    let line = read(thread, "stat")?;
    let (_, rest) = line.rsplit_once(')')?;
    Some(rest.trim_start().starts_with('R'))
}

/// How long the thread has waited for a CPU while it could run, since it began, without a wait that goes on. `None` where the kernel
/// does not count it.
pub(super) fn waited_ns(thread: u32) -> Option<u64> {
    let line = read(thread, "schedstat")?;
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let (_ran, waited, turns) =
        (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    // Without these counts the kernel writes zeros.
    (turns > 0).then_some(waited)
}

/// Where the thread is, if it is blocked in the kernel now. `Err` if the kernel does not tell.
pub(super) fn inside(thread: u32) -> Result<Option<Inside>, String> {
    let file = format!("/proc/self/task/{thread}/syscall");
    let line = fs::read_to_string(&file).map_err(|why| format!("{file}: {why}"))?;
    Ok(parse_inside(&line))
}

/// Whether the kernel tells of threads in system calls.
pub(super) fn tells_of_calls() -> Result<(), String> {
    let file = "/proc/thread-self/syscall";
    fs::read_to_string(file).map(drop).map_err(|why| {
        format!("{file} cannot be read ({why}), so a thread that uses no CPU is taken for blocked")
    })
}

/// `running`, or a number, the arguments of a system call, the stack pointer and the instruction; without arguments if the number is
/// -1.
fn parse_inside(line: &str) -> Option<Inside> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [call, .., stack, instruction] = words[..] else { return None };
    let call: i64 = call.parse().ok()?;
    let address = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let (stack, instruction) = (address(stack)?, address(instruction)?);
    Some(Inside { call: (call >= 0).then_some(call), stack, instruction })
}

fn read(thread: u32, file: &str) -> Option<String> {
    let line = fs::read(format!("/proc/self/task/{thread}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_a_thread_is() {
        let line = "230 0x0 0x0 0x7f 0x7f 0x0 0x0 0x7ffd866ee988 0x7fcf0b7f92ad\n";
        let (stack, instruction) = (0x7ffd_866e_e988, 0x7fcf_0b7f_92ad);
        assert_eq!(parse_inside(line), Some(Inside { call: Some(230), stack, instruction }));
        let line = "-1 0x7ffd866ee988 0x7fcf0b7f92ad";
        assert_eq!(parse_inside(line), Some(Inside { call: None, stack, instruction }));
        for nowhere in ["running\n", "", "230 0x1", "a 0x1 0x2", "1 2 3"] {
            assert_eq!(parse_inside(nowhere), None, "{nowhere:?}");
        }
    }
}
