//! How much memory it takes to read files that promise much: never more than the limit allows.

#![cfg(target_os = "linux")]

mod support;

use pertask_symbols::{Module, ModuleRange, Reason, Symbolizer, SymbolizerOptions};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::Place;

const MIB: u64 = 1 << 20;

/// A section: its name, its kind, its bytes, and how many zeros that take no place on the disk follow them.
type Section<'a> = (&'a str, u32, Vec<u8>, u64);

/// Writes a file with these sections, of which a symbol table's strings are those of the section behind it.
fn write(path: &Path, sections: &[Section<'_>]) {
    let mut names = vec![0];
    let mut all: Vec<_> = sections.to_vec();
    all.push((".names", 3, Vec::new(), 0));
    let starts: Vec<_> = all
        .iter()
        .map(|(name, ..)| {
            names.extend([name.as_bytes(), &[0]].concat());
            (names.len() - name.len() - 1) as u32
        })
        .collect();
    all.last_mut().unwrap().2 = names;
    let mut file = fs::File::create(path).unwrap();
    let mut headers = vec![0; 64];
    for (at, ((_, kind, bytes, zeros), name)) in all.iter().zip(starts).enumerate() {
        let start = file.seek(SeekFrom::End(0)).unwrap().max(64).next_multiple_of(8);
        file.seek(SeekFrom::Start(start)).unwrap();
        file.write_all(bytes).unwrap();
        let size = bytes.len() as u64 + zeros;
        file.set_len(start + size).unwrap();
        let link = if *kind == SYMBOLS { at as u32 + 2 } else { 0 };
        let (kinds, places) = ([name, *kind], [0, 0, start, size]);
        headers.extend(kinds.iter().flat_map(|it| it.to_le_bytes()));
        headers.extend(places.iter().flat_map(|it| it.to_le_bytes()));
        headers.extend([link, 0].iter().flat_map(|it| it.to_le_bytes()));
        let entry = if *kind == SYMBOLS { 24 } else { 0 };
        headers.extend([1, entry].iter().flat_map(|it: &u64| it.to_le_bytes()));
    }
    let at = file.seek(SeekFrom::End(0)).unwrap().next_multiple_of(8);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&headers).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&elf_header(at, all.len() as u16 + 1)).unwrap();
}

fn elf_header(sections: u64, count: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([3_u16, 62].iter().flat_map(|it| it.to_le_bytes()));
    header.extend(1_u32.to_le_bytes());
    header.extend([0, 0, sections].iter().flat_map(|it: &u64| it.to_le_bytes()));
    header.extend(0_u32.to_le_bytes());
    header.extend([64, 56, 0, 64, count, count - 1].iter().flat_map(|it| it.to_le_bytes()));
    header
}

const BITS: u32 = 1;
const SYMBOLS: u32 = 2;
const STRINGS: u32 = 3;
const NOTE: u32 = 7;

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// One test at a time, because memory is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns why the file has no symbols within a limit, which it must not exceed by much.
fn refused(path: &Path, build_id: &[u8], memory_bytes: u64) -> String {
    let ranges = vec![ModuleRange::new(0..4_096, 0)];
    let module = Module::new(path.to_str().unwrap(), build_id.to_vec(), ranges);
    let mut options = SymbolizerOptions::default();
    options.memory_bytes = memory_bytes as usize;
    let mut symbolizer = Symbolizer::of_recorded(&[module], &options);
    let before = peak();
    assert!(symbolizer.frames(16).is_empty());
    let taken = peak() - before;
    assert!(taken < memory_bytes + 16 * MIB, "{taken} bytes of memory were taken");
    let mut problems = symbolizer.problems().iter();
    let problem = problems.find(|it| !matches!(it.reason, Reason::NotIdentified)).unwrap();
    problem.to_string()
}

#[test]
fn a_large_symbol_table_is_not_copied_before_it_is_known_to_fit() {
    let _alone = alone();
    let place = Place::new("large-table");
    let path = place.at("large.so");
    let (table, text) = (384 * MIB, b"\0f\0".to_vec());
    write(&path, &[(".symtab", SYMBOLS, Vec::new(), table), (".strtab", STRINGS, text, 0)]);
    let said = refused(&path, &[], 4 * MIB);
    assert!(said.contains("one of its tables needs 402653184 bytes"), "{said}");
}

#[test]
fn large_notes_are_not_copied() {
    let _alone = alone();
    let place = Place::new("large-notes");
    let path = place.at("large.so");
    write(&path, &[(".note", NOTE, Vec::new(), 256 * MIB)]);
    let said = refused(&path, &[1, 2, 3], 4 * MIB);
    assert!(said.contains("one of its tables needs"), "{said}");
}

/// Units may share a list of ranges, so a file of some hundred kilobytes can have more of them than there is memory.
#[test]
fn many_ranges_of_addresses_are_counted_before_they_are_kept() {
    let _alone = alone();
    let place = Place::new("many-ranges");
    let path = place.at("ranges.so");
    let number = |value: u64, bytes: usize| value.to_le_bytes()[..bytes].to_vec();
    // A kind of unit, of which each has a start and the place of its ranges.
    let kind = vec![1, 0x11, 0, 0x11, 1, 0x55, 0x17, 0, 0, 0];
    let rest = [number(4, 2), number(0, 4), vec![8, 1], number(0, 8), number(0, 4)].concat();
    let unit = [number(rest.len() as u64, 4), rest].concat();
    let range = |at: u64| [number(0x1000 + 16 * at, 8), number(0x1008 + 16 * at, 8)].concat();
    let ranges: Vec<u8> = (0..10_000).flat_map(range).chain([0; 16]).collect();
    write(
        &path,
        &[
            (".debug_info", BITS, unit.repeat(1_000), 0),
            (".debug_abbrev", BITS, kind, 0),
            (".debug_ranges", BITS, ranges, 0),
            (".debug_line", BITS, vec![0; 4], 0),
        ],
    );
    let said = refused(&path, &[], 64 * MIB);
    assert!(said.contains("its debug information needs"), "{said}");
}

#[test]
fn what_sorting_a_symbol_table_takes_is_within_the_limit() {
    let _alone = alone();
    let place = Place::new("sorted-table");
    let path = place.at("sorted.so");
    let mut symbol = vec![1, 0, 0, 0, 2, 0, 1, 0];
    symbol.extend([16_u64, 16].iter().flat_map(|it| it.to_le_bytes()));
    let table = symbol.repeat(1 << 20);
    write(&path, &[(".symtab", SYMBOLS, table, 0), (".strtab", STRINGS, b"\0f\0".to_vec(), 0)]);
    let said = refused(&path, &[], 56 * MIB);
    assert!(said.contains("one of its tables needs"), "{said}");
}
