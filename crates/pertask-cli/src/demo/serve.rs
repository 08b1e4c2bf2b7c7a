//! `pertask demo --serve`: the service with an agent, for `pertask top` and the others to look at.

use std::process;

use pertask::{agent, otel};
use tokio::runtime::Runtime;

use crate::{
    cli::DemoOptions,
    demo::{clients::Clients, service::Service},
    error::Error,
    output::note,
    stop::Stop,
};

/// Serves, with clients that call, until the user asks to stop.
///
/// # Errors
///
/// Returns an [`Error`] if the port is in use, or if the service has given wrong answers.
pub fn run(options: &DemoOptions) -> Result<(), Error> {
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    runtime.block_on(serve(options))
}

async fn serve(options: &DemoOptions) -> Result<(), Error> {
    let mut stop = Stop::on_signals()?;
    let service = Service::start(options.port).await?;
    let agent = agent::init();
    publish();
    let endpoints = agent::serve(("127.0.0.1", 0)).map_err(Error::Endpoints)?;
    let mut clients = Clients::start(service.address(), options.clients);
    clients.warmed_up().await?;
    let (process, address) = (process::id(), endpoints.address());
    note(format_args!(
        "serving on http://{} until Ctrl-C; {agent}
  pertask top --pid {process}
  pertask stat --pid {process} -I 1000
  pertask tasks --pid {process} -d 1s
  pertask record --pid {process} -d 5s
  curl http://{address}/debug/pprof/tasks
  go tool pprof 'http://{address}/debug/pprof/profile?seconds=5'",
        service.address()
    ));
    stop.asked().await;
    let answers = clients.stop().await;
    service.stop().await;
    answers
}

/// Tells profilers outside which task each thread runs.
fn publish() {
    if let Err(why) = otel::publish([("service.name", "pertask demo")]) {
        note(format_args!("profilers outside see no tasks: {why}"));
    }
}
