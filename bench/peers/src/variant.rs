//! What is compared: pertask in each state, other tools, and nothing.

/// A way in which a service is built and runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As it comes.
    Plain,
    /// For tokio-console.
    Console,
    /// For dial9.
    Dial9,
}

/// One row of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is called in the table.
    pub what: &'static str,
    pub build: Build,
}

impl Build {
    /// The package that a build is for, and the variant to which its others are compared.
    pub fn bare(self) -> &'static str {
        match self {
            Self::Plain => "bare",
            Self::Console => "bare-console",
            Self::Dial9 => "bare-dial9",
        }
    }
}

impl Variant {
    /// The package whose version the table has.
    pub fn package(&self) -> Option<&'static str> {
        const PACKAGES: [&str; 6] =
            ["tokio-metrics", "fastrace", "tracing", "pprof", "console-subscriber", "dial9"];
        PACKAGES.into_iter().find(|package| self.name.starts_with(package))
    }

    /// The rate at which it samples, if its name ends with one.
    pub fn frequency_hz(&self) -> Option<u32> {
        self.name.rsplit('-').next()?.parse().ok()
    }
}

/// All of them. The first of each build does nothing.
pub const VARIANTS: [Variant; 23] = [
    plain("bare", "nothing"),
    plain("off", "pertask: a task, no session"),
    plain("agent", "pertask: and an agent that nobody calls"),
    plain("session", "pertask: a session for all tasks"),
    plain("labels", "pertask: a session, a label for each"),
    plain("wakes", "pertask: a session, with waits from wake to poll"),
    plain("lives", "pertask: a session, with lives"),
    plain("labels-off", "pertask: a label for each, no session"),
    plain("published", "pertask: the same, published by otel"),
    plain("pertask-99", "pertask: samples at 99 Hz"),
    plain("pertask-999", "pertask: samples at 999 Hz"),
    plain("pertask-lives-99", "pertask: lives, and samples at 99 Hz"),
    plain("pertask-waits-99", "pertask: the same, and places of waits"),
    plain("tokio-metrics", "tokio-metrics"),
    plain("fastrace", "fastrace: a span"),
    plain("tracing", "tracing: a span in a registry"),
    plain("pprof-99", "pprof-rs at 99 Hz"),
    plain("pprof-999", "pprof-rs at 999 Hz"),
    Variant { name: "bare-console", what: "nothing, built for the console", build: Build::Console },
    Variant { name: "console-subscriber", what: "tokio-console", build: Build::Console },
    Variant { name: "bare-dial9", what: "nothing, built for dial9", build: Build::Dial9 },
    Variant { name: "dial9", what: "dial9", build: Build::Dial9 },
    Variant { name: "dial9-99", what: "dial9, CPU samples at 99 Hz", build: Build::Dial9 },
];

const fn plain(name: &'static str, what: &'static str) -> Variant {
    Variant { name, what, build: Build::Plain }
}

/// The folder to which dial9 writes in a process.
pub fn traces_of(process: u32) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("dial9-{process}"))
}

/// One of eight tenants.
pub fn tenant(n: usize) -> &'static str {
    ["acme", "bolt", "cedar", "delta", "ember", "flint", "grove", "helix"][n % 8]
}
