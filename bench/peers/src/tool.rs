//! The tools, switched on for the time that a service or a task lives.

use crate::variant::Variant;
use pertask::sampler::{Sampler, SamplerOptions};
use pertask::{Session, SessionOptions};
use std::any::Any;
use tokio::runtime::{Builder, Runtime};

/// A tool at work. Its drop ends the work.
pub struct AtWork {
    _tools: Vec<Box<dyn Any>>,
    sampler: Option<Sampler>,
    /// The runtime, which some tools make themselves.
    pub runtime: Option<Runtime>,
}

impl AtWork {
    /// Ends the sampling, and returns the median and the 99th percentile of what the signal handler took, in microseconds.
    pub fn handler_us(&mut self) -> Option<(f64, f64)> {
        let samples = self.sampler.take()?.stop().samples;
        let mut took: Vec<_> = samples.iter().map(|sample| sample.handler_ns).collect();
        took.sort_unstable();
        let last = took.len().checked_sub(1)?;
        Some((f64::from(took[last / 2]) / 1e3, f64::from(took[last * 99 / 100]) / 1e3))
    }
}

/// Switches a variant's tool on. `builder` is for the runtime.
pub fn start(variant: &Variant, builder: &mut Builder) -> AtWork {
    let mut tools: Vec<Box<dyn Any>> = Vec::new();
    let mut sampler = None;
    match variant.name {
        "session" | "labels" => tools.push(Box::new(Session::start().expect("a session"))),
        "wakes" => {
            let options = SessionOptions { wake_latency: true, ..SessionOptions::default() };
            tools.push(Box::new(options.start().expect("a session")));
        }
        "lives" => {
            let options = SessionOptions { life: true, ..SessionOptions::default() };
            tools.push(Box::new(options.start().expect("a session")));
        }
        "published" => {
            pertask::otel::publish([("service.name", "bench")]).expect("it exports the symbol")
        }
        name if name.starts_with("pertask-") => {
            let mut options =
                SamplerOptions::with_frequency(variant.frequency_hz().expect("a rate"));
            options.waits = name.contains("waits");
            if name.contains("lives") {
                // One session, as where waits are sampled.
                options.clocked = false;
                let lives = SessionOptions { life: true, ..SessionOptions::default() };
                tools.push(Box::new(lives.start().expect("a session")));
            }
            sampler = Some(Sampler::start(options).expect("something interrupts threads"));
        }
        #[cfg(feature = "peers")]
        name if name.starts_with("pprof-") => {
            let rate = variant.frequency_hz().expect("a rate").cast_signed();
            tools.push(Box::new(pprof::ProfilerGuard::new(rate).expect("a profiler")));
        }
        #[cfg(feature = "peers")]
        "tracing" => {
            use tracing_subscriber::prelude::*;
            tracing_subscriber::registry().init();
        }
        #[cfg(feature = "peers")]
        "fastrace" => fastrace::set_reporter(Discard, fastrace::collector::Config::default()),
        #[cfg(feature = "console")]
        "console-subscriber" => console_subscriber::init(),
        #[cfg(feature = "dial9")]
        name if name.starts_with("dial9") => {
            let (recorder, runtime) = dial9(variant, builder);
            tools.push(Box::new(recorder));
            return AtWork { _tools: tools, sampler, runtime: Some(runtime) };
        }
        _ => {}
    }
    AtWork { _tools: tools, sampler, runtime: Some(builder.build().expect("a runtime")) }
}

/// Takes fastrace's spans, without which it makes none.
#[cfg(feature = "peers")]
struct Discard;

#[cfg(feature = "peers")]
impl fastrace::collector::Reporter for Discard {
    fn report(&mut self, spans: Vec<fastrace::collector::SpanRecord>) {
        drop(spans);
    }
}

/// A recorder that writes to a folder of its own, as dial9's README sets it up.
#[cfg(feature = "dial9")]
fn dial9(variant: &Variant, builder: &mut Builder) -> (impl Any + use<>, Runtime) {
    let folder = crate::variant::traces_of(std::process::id());
    let sampled = variant.frequency_hz();
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("DIAL9_ENABLED", "true");
        std::env::set_var("DIAL9_TRACE_DIR", folder);
        std::env::set_var("DIAL9_CPU_PROFILE_ENABLED", sampled.is_some().to_string());
        std::env::set_var("DIAL9_CPU_SAMPLE_HZ", sampled.unwrap_or(99).to_string());
        std::env::set_var("DIAL9_SCHEDULE_PROFILE_ENABLED", "false");
    }
    let _ = builder;
    dial9::recorder_from_env_with(|builder| {
        builder.worker_threads(1);
    })
    .expect("a recorder")
}
