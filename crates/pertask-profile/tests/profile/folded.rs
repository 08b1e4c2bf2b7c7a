//! Folded stacks, as `flamegraph.pl` reads them.

use std::time::Duration;

use pertask_profile::{Function, Line, Location, Profile, ProfileBuilder, RootBy, Sample, Weight};

use crate::example::{self, amount, task};

#[test]
fn stacks_grow_from_what_the_caller_chooses() {
    let profile = example::profile();
    assert_eq!(
        folded(&profile, RootBy::TaskName, Weight::Samples),
        "(outside tasks);service::main;libc.so.6+0x244 1\n\
         GET /hash;(incomplete stack);service::handle;service::inlined;service::hash 4\n\
         GET /render;service::main;service::handle;service::inlined;service::render 5\n"
    );
    assert_eq!(
        folded(&profile, RootBy::Site, Weight::Time),
        "(outside tasks);service::main;libc.so.6+0x244 10000000\n\
         src/service.rs:80;service::main;service::handle;service::inlined;service::render 50000000\n\
         src/service.rs:81;(incomplete stack);service::handle;service::inlined;service::hash 40000000\n"
    );
    assert_eq!(
        folded(&profile, RootBy::Thread, Weight::Samples),
        "worker [4711];(incomplete stack);service::handle;service::inlined;service::hash 4\n\
         worker [4711];service::main;libc.so.6+0x244 1\n\
         worker [4711];service::main;service::handle;service::inlined;service::render 5\n"
    );
}

#[test]
fn no_name_breaks_a_line() {
    let names = [
        ("a;b", "a:b"),
        ("a\nb\r", "a b"),
        ("[u8; 8]", "[u8: 8]"),
        ("seven 7", "seven_7"),
        ("v 1.5", "v_1.5"),
        ("# comment", "#_comment"),
        ("\u{2028}\u{1b}[31m", "[31m"),
        ("", "-"),
    ];
    for (name, shown) in names {
        let profile = named(name);
        // The function's own emptiness is said otherwise.
        let frame = if name.is_empty() { "(unknown)" } else { shown };
        assert_eq!(
            folded(&profile, RootBy::TaskName, Weight::Samples),
            format!("{shown};{frame} 1\n"),
            "{name:?}"
        );
    }
}

/// One sample of a task and a function of that name.
pub fn named(name: &str) -> Profile {
    let mut builder = ProfileBuilder::new(name, 1);
    let function = Function { name: builder.text(name), ..Function::default() };
    let lines = vec![Line { function: builder.function(function), line: 0 }];
    let stack = vec![builder.location(Location { lines, ..Location::default() })];
    let task = Some(task(&mut builder, 1, name, 1));
    builder.add(Sample { stack, task, ..amount(1) });
    builder.finish(Duration::ZERO)
}

fn folded(profile: &Profile, root: RootBy, weight: Weight) -> String {
    let mut text = Vec::new();
    profile.write_folded(root, weight, &mut text).expect("memory");
    String::from_utf8(text).expect("UTF-8")
}
