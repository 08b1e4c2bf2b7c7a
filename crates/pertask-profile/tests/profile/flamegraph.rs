//! The flamegraph, as a browser's XML parser sees it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use pertask_profile::{
    FlamegraphOptions, Function, Line, Location, Profile, ProfileBuilder, RootBy, Sample, Weight,
};
use roxmltree::{Document, Node};

use crate::example::{self, amount, task};
use crate::folded;

#[test]
fn it_says_what_it_shows_and_what_was_lost() {
    let svg = svg(&example::profile(), &FlamegraphOptions::default());
    let texts = texts(&svg);
    assert!(texts.contains(&"CPU time by task".to_owned()), "{texts:?}");
    let subtitle = "10 samples in 2.50 s, by hand; 7 samples dropped, 4 stacks incomplete";
    assert!(texts.contains(&subtitle.to_owned()), "{texts:?}");
    // What is not there needs no explanation.
    assert!(!svg.contains("not drawn") && !texts.contains(&"spawn site".to_owned()), "{texts:?}");
}

#[test]
fn a_box_tells_its_name_source_and_amounts() {
    let svg = svg(&example::profile(), &FlamegraphOptions::default());
    assert_eq!(
        tooltips(&svg),
        [
            "all\ntotal 100 ms (100.00 %), own 0 ns (0.00 %)\ntotal 10 samples, own 0 samples",
            "(outside tasks)\ntotal 10.0 ms (10.00 %), own 0 ns (0.00 %)\ntotal 1 sample, own 0 samples",
            "service::main\nsrc/service.rs:3\ntotal 10.0 ms (10.00 %), own 0 ns (0.00 %)\ntotal 1 sample, own 0 samples",
            "libc.so.6+0x244\ntotal 10.0 ms (10.00 %), own 10.0 ms (10.00 %)\ntotal 1 sample, own 1 sample",
            "GET /hash\nspawned at src/service.rs:81\ntotal 40.0 ms (40.00 %), own 0 ns (0.00 %)\ntotal 4 samples, own 0 samples",
            "(incomplete stack)\ntotal 40.0 ms (40.00 %), own 0 ns (0.00 %)\ntotal 4 samples, own 0 samples",
            "service::handle\nsrc/service.rs:3\ntotal 40.0 ms (40.00 %), own 0 ns (0.00 %)\ntotal 4 samples, own 0 samples",
            "service::inlined\nsrc/service.rs:3\ntotal 40.0 ms (40.00 %), own 0 ns (0.00 %)\ntotal 4 samples, own 0 samples",
            "service::hash\nsrc/service.rs:3\ntotal 40.0 ms (40.00 %), own 40.0 ms (40.00 %)\ntotal 4 samples, own 4 samples",
            "GET /render\nspawned at src/service.rs:80\ntotal 50.0 ms (50.00 %), own 0 ns (0.00 %)\ntotal 5 samples, own 0 samples",
            "service::main\nsrc/service.rs:3\ntotal 50.0 ms (50.00 %), own 0 ns (0.00 %)\ntotal 5 samples, own 0 samples",
            "service::handle\nsrc/service.rs:3\ntotal 50.0 ms (50.00 %), own 0 ns (0.00 %)\ntotal 5 samples, own 0 samples",
            "service::inlined\nsrc/service.rs:3\ntotal 50.0 ms (50.00 %), own 0 ns (0.00 %)\ntotal 5 samples, own 0 samples",
            "service::render\nsrc/service.rs:3\ntotal 50.0 ms (50.00 %), own 50.0 ms (50.00 %)\ntotal 5 samples, own 5 samples",
        ]
    );
}

#[test]
fn its_root_weight_titles_and_width_are_the_callers() {
    let options = FlamegraphOptions {
        root: RootBy::Thread,
        weight: Weight::Samples,
        title: Some("<mine>".into()),
        subtitle: Some("of ]]> today".into()),
        width_px: 640,
        ..FlamegraphOptions::default()
    };
    let svg = svg(&example::profile(), &options);
    let texts = texts(&svg);
    assert!(texts.contains(&"<mine>".to_owned()), "{texts:?}");
    assert!(texts.contains(&"of ]]> today".to_owned()), "{texts:?}");
    assert!(!svg.contains("<mine>"));
    let document = parse(&svg);
    assert_eq!(document.root_element().attribute("width"), Some("640"));
    let worker = named(&document, "worker [4711]");
    assert_eq!(worker.attribute("data-total"), Some("10"));
    assert_eq!(
        title(worker).lines().nth(1),
        Some("total 10 samples (100.00 %), own 0 samples (0.00 %)")
    );
}

/// Tasks are what one looks for first.
#[test]
fn tasks_sites_and_threads_are_told_from_functions() {
    for (root, name, class) in [
        (RootBy::TaskName, "GET /hash", "task"),
        (RootBy::TaskName, "(outside tasks)", "outside"),
        (RootBy::Site, "src/service.rs:81", "site"),
        (RootBy::Thread, "worker [4711]", "thread"),
    ] {
        let svg = svg(&example::profile(), &FlamegraphOptions { root, ..Default::default() });
        let document = parse(&svg);
        let classes = classes(named(&document, name));
        assert!(classes.contains("root") && classes.contains(class), "{name}: {classes:?}");
        let roots = boxes(&document).filter(|it| self::classes(*it).contains("root"));
        assert!(roots.into_iter().all(|root| root.attribute("data-depth") == Some("1")));
    }
}

#[test]
fn colours_tell_whose_code_it_is() {
    let files = [
        ("app::run", "src/main.rs", "own"),
        ("main", "src/main.rs", "own"),
        ("<tokio::X as core::Y>::z", "/r/registry/src/index-1/tokio-1.54.1/src/a.rs", "lib"),
        ("unknown_crate::f", "", "lib"),
        (
            "<core::pin::Pin<P> as core::future::Future>::poll",
            "/rustc/0a1b/library/core/src/a.rs",
            "std",
        ),
        ("alloc::vec::from_elem", "", "std"),
        ("_int_malloc", "./malloc/malloc.c", "sys"),
        ("read", "", "sys"),
        ("(no sample)", "", "words"),
        ("(before its first sample)", "", "words"),
        ("(kernel, not sampled)", "", "words"),
    ];
    for (name, file, expected) in files {
        let profile = profile_of(&[(name, file, 1)]);
        let svg = svg(&profile, &FlamegraphOptions::default());
        let document = parse(&svg);
        let classes = classes(named(&document, name));
        assert!(classes.iter().any(|class| class.starts_with(expected)), "{name}: {classes:?}");
    }
    let class = |name, version| {
        let file = format!("/r/registry/src/index-1/{version}/src/a.rs");
        let svg = svg(&profile_of(&[(name, &file, 1)]), &FlamegraphOptions::default());
        let document = parse(&svg);
        named(&document, name).attribute("class").expect("it has some").to_owned()
    };
    // A crate keeps its colour whatever is called in it, and in whatever version.
    assert_eq!(class("<T as hyper::A>::b", "hyper-1.0.0"), class("hyper::c", "hyper-2.1.0"));
}

#[test]
fn widths_add_up() {
    // Weights of which no width is a whole number of pixels, and one thread's rest.
    let functions: Vec<_> = (0..97).map(|it| (format!("f{it}"), 1_000_003 * (it + 1))).collect();
    let functions: Vec<_> = functions.iter().map(|(name, ns)| (&**name, "", *ns)).collect();
    for weight in [Weight::Time, Weight::Samples] {
        let options = FlamegraphOptions { weight, ..FlamegraphOptions::default() };
        for profile in [profile_of(&functions), example::profile()] {
            let svg = svg(&profile, &options);
            let document = parse(&svg);
            let whole = profile.whole();
            let expected = match weight {
                Weight::Samples => whole.samples,
                _ => whole.time_ns,
            };
            let root = boxes(&document).next().expect("all");
            assert_eq!(number(root, "data-total"), u128::from(expected));
            // All but the margins.
            assert_eq!(pixels(root), (1_000, 118_000));
            for parent in boxes(&document) {
                assert_children_fit(&document, parent);
            }
        }
    }
}

/// They stand side by side in their parent, in numbers as in pixels.
fn assert_children_fit(document: &Document<'_>, parent: Node<'_, '_>) {
    fn end(node: Node<'_, '_>) -> u128 {
        number(node, "data-start") + number(node, "data-total")
    }
    let depth = number(parent, "data-depth");
    // What follows it in the document, up to its neighbour.
    let behind = boxes(document).skip_while(|it| it.id() != parent.id()).skip(1);
    let below = behind.take_while(|it| number(*it, "data-depth") > depth);
    let (mut at, (mut left, mut room)) = (number(parent, "data-start"), pixels(parent));
    for child in below.filter(|it| number(*it, "data-depth") == depth + 1) {
        assert_eq!(number(child, "data-start"), at, "{}", title(child));
        at = end(child);
        let (x, width) = pixels(child);
        assert_eq!(x, left, "{}", title(child));
        left += width;
        room = room.checked_sub(width).expect("no child is wider than what is left");
    }
    assert!(at <= end(parent));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each box's own samples are those of the folded stack that goes to it.
    #[test]
    fn boxes_are_the_folded_stacks(
        inlined in prop::collection::vec(prop::collection::vec(0..5_u32, 0..5), 6),
        stacks in prop::collection::vec((prop::collection::vec(0..6_usize, 0..6), any::<bool>(), 1..9_u64), 0..40),
    ) {
        let profile = random(&inlined, stacks);
        let options = FlamegraphOptions {
            weight: Weight::Samples,
            min_width_millipx: 0,
            ..FlamegraphOptions::default()
        };
        let svg = svg(&profile, &options);
        let mut folded = Vec::new();
        profile.write_folded(RootBy::TaskName, Weight::Samples, &mut folded).expect("memory");
        let folded = String::from_utf8(folded).expect("UTF-8");
        let expected: BTreeSet<_> = folded.lines().map(str::to_owned).collect();
        prop_assert_eq!(own_stacks(&parse(&svg)), expected);
    }
}

/// Locations of those functions, and stacks of those locations.
fn random(inlined: &[Vec<u32>], stacks: Vec<(Vec<usize>, bool, u64)>) -> Profile {
    let mut builder = ProfileBuilder::new("by chance", 1);
    let mut locations = Vec::new();
    for (address, functions) in (0..).zip(inlined) {
        let mut line = |it: &u32| {
            let name = builder.text(&format!("f{it}"));
            Line { function: builder.function(Function { name, ..Function::default() }), line: 0 }
        };
        let lines = functions.iter().map(&mut line).collect();
        locations.push(builder.location(Location { address, lines, ..Location::default() }));
    }
    for (stack, complete, count) in stacks {
        let stack = stack.into_iter().map(|it| locations[it]).collect();
        builder.add(Sample { stack, complete, ..amount(count) });
    }
    builder.finish(Duration::ZERO)
}

/// The boxes with samples of their own, as lines of folded stacks.
fn own_stacks(document: &Document<'_>) -> BTreeSet<String> {
    let mut stack = Vec::new();
    let mut found = BTreeSet::new();
    for node in boxes(document) {
        stack.truncate(number(node, "data-depth") as usize);
        stack.push(name(node));
        let amounts = title(node).lines().find(|line| line.starts_with("total ")).expect("amounts");
        let own = amounts.rsplit_once("own ").expect("it is told").1;
        let own: u64 = own.split(' ').next().expect("a number").parse().expect("a number");
        if own > 0 {
            found.insert(format!("{} {own}", stack[1..].join(";")));
        }
    }
    found
}

#[test]
fn neighbours_are_in_the_order_of_their_names() {
    let svg = svg(&profile_of(&[("b", "", 1), ("c", "", 3), ("a", "", 2)]), &Default::default());
    let document = parse(&svg);
    let names: Vec<_> = boxes(&document).skip(2).map(name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn functions_of_one_name_and_file_are_one() {
    let svg = svg(
        &profile_of(&[("new", "a.rs", 1), ("new", "b.rs", 1), ("new", "a.rs", 2)]),
        &Default::default(),
    );
    let document = parse(&svg);
    let new: Vec<_> = boxes(&document).filter(|it| name(*it) == "new").collect();
    let totals: Vec<_> = new.into_iter().map(|it| number(it, "data-total")).collect();
    assert_eq!(totals, [3, 1]);
}

#[test]
fn tasks_of_one_name_tell_whether_they_have_one_site() {
    let mut builder = ProfileBuilder::new("by hand", 1);
    for (name, line) in [("one", 7), ("one", 7), ("two", 7), ("two", 8), ("two", 8)] {
        let task = Some(task(&mut builder, line.into(), name, line));
        builder.add(Sample { task, ..amount(1) });
    }
    let svg = svg(&builder.finish(Duration::ZERO), &FlamegraphOptions::default());
    let document = parse(&svg);
    assert!(title(named(&document, "one")).contains("\nspawned at src/service.rs:7\n"));
    assert!(title(named(&document, "two")).contains("\nspawned at several sites\n"));
}

/// Where it is not known in which line they begin, those are told in which they were met.
#[test]
fn a_function_tells_its_lines() {
    let mut profile = profile_of(&[("f", "a.rs", 1), ("f", "a.rs", 1), ("f", "a.rs", 1)]);
    let source = |profile: &Profile| {
        let svg = svg(profile, &FlamegraphOptions::default());
        title(named(&parse(&svg), "f")).lines().nth(1).expect("its source").to_owned()
    };
    assert_eq!(source(&profile), "a.rs:1");
    profile.locations[1].lines[0].line = 0;
    profile.locations[2].lines[0].line = 7;
    assert_eq!(source(&profile), "a.rs:1-7");
    profile.functions[0].start_line = 3;
    assert_eq!(source(&profile), "a.rs:3");
}

#[test]
fn no_name_is_anything_but_a_name() {
    let long = "x".repeat(100_000);
    let names = [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\"onload=\"alert(1)", "\"onload=\"alert(1)"),
        ("'><a href='javascript:alert(1)'>", "'><a href='javascript:alert(1)'>"),
        ("&amp;&#60;&bomb;", "&amp;&#60;&bomb;"),
        ("]]></script><script>", "]]></script><script>"),
        ("</style></title></g>", "</style></title></g>"),
        ("<!--", "<!--"),
        ("a;b", "a;b"),
        ("seven 12", "seven 12"),
        ("# x", "# x"),
        ("nul\u{0}esc\u{1b}[31m", "nul\\u{0}esc\\u{1b}[31m"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\u{85}\u{9f}\u{7f}", "\\u{85}\\u{9f}\\u{7f}"),
        ("\u{fffe}\u{ffff}\u{2028}", "\\u{fffe}\\u{ffff}\\u{2028}"),
        ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
        ("größe::λ::日本", "größe::λ::日本"),
        (&long, &format!("{}…", "x".repeat(999))),
    ];
    for (hostile, shown) in names {
        let svg = svg(&folded::named(hostile), &FlamegraphOptions::default());
        let document = parse(&svg);
        // The task and the function.
        let found = boxes(&document).filter(|it| name(*it) == shown).count();
        assert_eq!(found, 2, "{hostile:.40?}: {svg:.0}");
        assert_eq!(markup(&document), markup(&parse(&ordinary())), "{hostile:.40?}");
        assert_eq!(
            constant_parts(&document),
            constant_parts(&parse(&ordinary())),
            "{hostile:.40?}"
        );
        assert!(svg.chars().all(|c| !is_forbidden(c)), "{hostile:.40?}");
    }
}

fn ordinary() -> String {
    svg(&folded::named("ordinary"), &FlamegraphOptions::default())
}

fn is_forbidden(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Each element with the names of its attributes: what a name could add to.
fn markup(document: &Document<'_>) -> HashSet<String> {
    let elements = document.descendants().filter(|it| it.is_element());
    let spelled = |node: Node<'_, '_>| {
        let attributes: Vec<_> =
            node.attributes().map(|it| it.name()).filter(|it| *it != "data-end").collect();
        format!("{} {attributes:?}", node.tag_name().name())
    };
    elements.map(spelled).collect()
}

fn constant_parts(document: &Document<'_>) -> Vec<String> {
    let is_code = |it: &Node<'_, '_>| matches!(it.tag_name().name(), "style" | "script");
    document
        .descendants()
        .filter(is_code)
        .map(|it| it.text().unwrap_or_default().to_owned())
        .collect()
}

/// It opens from a file, without a network.
#[test]
fn it_needs_nothing_else() {
    let svg = svg(&example::profile(), &FlamegraphOptions::default());
    let document = parse(&svg);
    for node in document.descendants() {
        for attribute in node.attributes() {
            assert!(!["href", "src"].contains(&attribute.name()), "{attribute:?}");
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
        }
    }
    let code = constant_parts(&document).concat();
    for word in ["@import", "url(", "innerHTML", "eval(", "fetch(", "document.write", "]]>"] {
        assert!(!code.contains(word), "{word}");
    }
}

#[test]
fn what_is_too_narrow_is_told_of() {
    let profile = profile_of(&[("wide", "", 999_000), ("thin", "", 600), ("hair", "", 400)]);
    // A hundredth of the width.
    let options = FlamegraphOptions { min_width_millipx: 12_000, ..Default::default() };
    let svg = svg(&profile, &options);
    let document = parse(&svg);
    let names: Vec<_> = boxes(&document).map(name).collect();
    assert_eq!(names, ["all", "t", "wide"]);
    let said = "not drawn: 2 frames too narrow to be seen (1.00 µs, 0.10 % of all)";
    assert!(texts(&svg).contains(&said.to_owned()), "{:?}", texts(&svg));
    let task = title(named(&document, "t"));
    assert!(task.contains("own 0 ns"), "{task}");
    assert!(task.ends_with("1.00 µs in callees that are not drawn"), "{task}");
    let all = FlamegraphOptions { min_width_millipx: 0, ..Default::default() };
    assert_eq!(boxes(&parse(&self::svg(&profile, &all))).count(), 5);
    // A box as wide as the bound is wide enough: a hundredth.
    let profile = profile_of(&[("wide", "", 981), ("bound", "", 10), ("thin", "", 9)]);
    let svg = self::svg(&profile, &options);
    let document = parse(&svg);
    let names: Vec<_> = boxes(&document).map(name).collect();
    assert_eq!(names, ["all", "t", "bound", "wide"]);
}

#[test]
fn of_too_many_frames_the_widest_are_drawn() {
    let profile = profile_of(&[("a", "", 10), ("b", "", 30), ("c", "", 20), ("d", "", 40)]);
    let options = FlamegraphOptions { max_frames: 4, ..Default::default() };
    let svg = svg(&profile, &options);
    let document = parse(&svg);
    let names: Vec<_> = boxes(&document).map(name).collect();
    assert_eq!(names, ["all", "t", "b", "d"]);
    assert!(svg.contains("not drawn: 2 frames too narrow to be seen (30 ns, 30.00 % of all)"));
}

#[test]
fn what_is_too_deep_is_told_of() {
    let options = FlamegraphOptions { max_depth: 3, ..Default::default() };
    let svg = svg(&example::profile(), &options);
    let document = parse(&svg);
    assert_eq!(boxes(&document).map(|it| number(it, "data-depth")).max(), Some(2));
    assert!(
        svg.contains("not drawn: what 3 frames in row 3 called (100 ms, 100.00 % of all)"),
        "{svg}"
    );
}

/// A few kilobytes that unfold to 80 million frames.
#[test]
fn what_is_inlined_without_end_takes_no_more_than_is_drawn() {
    let profile = unfolding(4_000, 20_000);
    let svg = svg(&profile, &FlamegraphOptions::default());
    let document = parse(&svg);
    assert_eq!(boxes(&document).count(), 1_024);
    assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
    assert!(svg.contains("not drawn: what 1 frame in row 1024 called ("));
}

/// Names that are long, and longer when they are spelled out.
#[test]
fn names_have_a_bound_together() {
    let names: Vec<_> = (0..10_000).map(|it| format!("{it}{}", "\u{1}".repeat(1_000))).collect();
    let functions: Vec<_> = names.iter().map(|name| (&**name, "", 1)).collect();
    let options =
        FlamegraphOptions { min_width_millipx: 0, max_frames: 8_002, ..Default::default() };
    let svg = svg(&profile_of(&functions), &options);
    assert_eq!(svg.matches("data-depth=\"2\"").count(), 8_000);
    assert!(svg.len() < 25 << 20, "{} bytes", svg.len());
    assert!(svg.contains("not drawn: 2000 frames too narrow"));
}

/// That many functions inlined at one place, called at many addresses that have no symbol.
fn unfolding(inlined: u32, samples: u64) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 1);
    let line = |it: u32, builder: &mut ProfileBuilder| {
        let name = builder.text(&format!("inlined_{it}"));
        Line { function: builder.function(Function { name, ..Function::default() }), line: 0 }
    };
    let lines = (0..inlined).map(|it| line(it, &mut builder)).collect();
    let inlined = builder.location(Location { lines, ..Location::default() });
    for address in 1..=samples {
        let leaf = builder.location(Location { address, ..Location::default() });
        builder.add(Sample { stack: vec![leaf, inlined], ..amount(1) });
    }
    builder.finish(Duration::ZERO)
}

#[test]
fn one_profile_is_one_picture() {
    let options = FlamegraphOptions::default();
    let profile = example::profile();
    assert_eq!(svg(&profile, &options), svg(&profile, &options));
    // In whatever order its samples come.
    let mut turned = profile.clone();
    turned.samples.reverse();
    assert_eq!(svg(&turned, &options), svg(&profile, &options));
}

#[test]
fn sums_beyond_reason_are_drawn() {
    let mut builder = ProfileBuilder::new("", 0);
    for tid in [1, 2, 3] {
        let thread = Some(pertask_profile::ThreadRef { tid, name: "t".into() });
        builder.add(Sample { count: u64::MAX, time_ns: u64::MAX, thread, ..Sample::default() });
    }
    let profile = builder.finish(Duration::MAX);
    let options =
        FlamegraphOptions { root: RootBy::Thread, width_px: u32::MAX, ..Default::default() };
    let svg = svg(&profile, &options);
    let document = parse(&svg);
    assert_eq!(number(named(&document, "all"), "data-total"), 3 * u128::from(u64::MAX));
    assert_eq!(number(named(&document, "t [3]"), "data-start"), 2 * u128::from(u64::MAX));
}

#[test]
fn what_has_no_weight_is_not_drawn() {
    // Time that was measured and never sampled.
    let mut profile = profile_of(&[("f", "", 5)]);
    profile.samples[0].count = 0;
    let options = FlamegraphOptions { weight: Weight::Samples, ..Default::default() };
    assert!(svg(&profile, &options).contains("(no samples)"));
    let svg = svg(&profile, &FlamegraphOptions::default());
    assert!(title(named(&parse(&svg), "f")).contains("own 0 samples"));
}

#[test]
fn no_samples_is_a_picture_too() {
    let profile = ProfileBuilder::new("by hand", 1).finish(Duration::ZERO);
    for (weight, said) in [(Weight::Time, "(no CPU time"), (Weight::Samples, "(no samples)")] {
        let svg = svg(&profile, &FlamegraphOptions { weight, ..Default::default() });
        assert_eq!(boxes(&parse(&svg)).count(), 0);
        assert!(texts(&svg).iter().any(|text| text.starts_with(said)), "{svg}");
    }
}

/// Functions of one task `t`: their names, files and nanoseconds.
fn profile_of(functions: &[(&str, &str, u64)]) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 1);
    let mut samples = Vec::new();
    for (name, file, time_ns) in functions {
        let (name, file) = (builder.text(name), builder.text(file));
        let function = builder.function(Function { name, file, ..Function::default() });
        let address = samples.len() as u64;
        let lines = vec![Line { function, line: 1 }];
        let stack = vec![builder.location(Location { address, lines, ..Location::default() })];
        let task = Some(task(&mut builder, 1, "t", 1));
        samples.push(Sample { count: 1, time_ns: *time_ns, stack, task, ..Sample::default() });
    }
    samples.into_iter().for_each(|sample| builder.add(sample));
    builder.finish(Duration::ZERO)
}

fn svg(profile: &Profile, options: &FlamegraphOptions) -> String {
    let mut svg = Vec::new();
    profile.write_flamegraph(options, &mut svg).expect("memory");
    String::from_utf8(svg).expect("UTF-8")
}

fn parse(svg: &str) -> Document<'_> {
    Document::parse(svg).expect("XML")
}

fn boxes<'a, 'input>(document: &'a Document<'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    document.descendants().filter(|it| classes(*it).contains("box"))
}

fn named<'a, 'input>(document: &'a Document<'input>, wanted: &str) -> Node<'a, 'input> {
    boxes(document).find(|it| name(*it) == wanted).unwrap_or_else(|| panic!("no box {wanted}"))
}

fn classes<'a>(node: Node<'a, '_>) -> HashSet<&'a str> {
    node.attribute("class").unwrap_or_default().split(' ').collect()
}

fn child<'a, 'input>(node: Node<'a, 'input>, tag: &str) -> Node<'a, 'input> {
    node.children()
        .find(|it| it.has_tag_name(("http://www.w3.org/2000/svg", tag)))
        .expect("a child")
}

fn title<'a>(node: Node<'a, '_>) -> &'a str {
    child(node, "title").text().expect("a tooltip")
}

fn name<'a>(node: Node<'a, '_>) -> &'a str {
    title(node).lines().next().expect("a name")
}

fn tooltips(svg: &str) -> Vec<String> {
    boxes(&parse(svg)).map(|it| title(it).to_owned()).collect()
}

fn texts(svg: &str) -> Vec<String> {
    let document = parse(svg);
    let texts = document.descendants().filter(|it| it.tag_name().name() == "text");
    texts.map(|it| it.text().unwrap_or_default().to_owned()).collect()
}

fn number(node: Node<'_, '_>, attribute: &str) -> u128 {
    node.attribute(attribute).and_then(|it| it.parse().ok()).expect("a number")
}

/// Where its left edge is, and how wide it is, in hundredths of a pixel.
fn pixels(node: Node<'_, '_>) -> (u64, u64) {
    let rect = child(node, "rect");
    let centi = |name| {
        let text = rect.attribute(name).expect("there is one").replace('.', "");
        text.parse().expect("two decimals")
    };
    (centi("x"), centi("width"))
}
