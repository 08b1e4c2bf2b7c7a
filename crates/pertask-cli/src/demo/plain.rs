//! `pertask demo --plain`: the service with no line of pertask in it, in a process of its own, recorded from outside.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use tokio::runtime::Runtime;

use crate::{
    cli::DemoOptions,
    demo::{clients::Clients, service::Service},
    error::Error,
    output::note,
    record::{self, RecordOptions},
};

/// Starts the service, calls it, and records it meanwhile.
///
/// # Errors
///
/// Returns an [`Error`] if the service does not start or gives wrong answers, or if it cannot be recorded.
pub fn run(options: &DemoOptions) -> Result<(), Error> {
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let asked = record::stopped(&runtime)?;
    let (service, address) = Running::start(options.port)?;
    note(format_args!(
        "serving on http://{address}, without pertask, in process {}",
        service.0.id()
    ));
    let clients = runtime.block_on(async {
        let mut clients = Clients::start(address, options.clients);
        clients.warmed_up().await.map(|()| clients)
    })?;
    let wanted = RecordOptions::of_process(service.0.id(), options);
    let recorded = record::run_until(&wanted, &asked);
    let answers = runtime.block_on(clients.stop());
    drop(service);
    recorded?;
    answers
}

/// Serves until stdin is closed. The address is the first line of stdout.
///
/// # Errors
///
/// Returns an [`Error`] if the port is in use.
pub fn serve(port: u16) -> Result<(), Error> {
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let service = runtime.block_on(Service::start_plain(port))?;
    let told = writeln!(io::stdout(), "{}", service.address());
    told.map_err(|cause| Error::Write { place: "standard output".to_owned(), cause })?;
    // Whatever ends it: who has started this is gone, or has had enough.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    runtime.block_on(service.stop());
    Ok(())
}

/// The service's process, which ends when this is dropped.
struct Running(Child);

impl Running {
    fn start(port: u16) -> Result<(Self, SocketAddr), Error> {
        let program = env::current_exe().map_err(Error::Serve)?;
        let mut command = Command::new(program);
        command.args(["demo", "--serve-plain", "--port", &port.to_string()]);
        // Ctrl-C is for the recorder, which then ends the service.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut running = Self(command.spawn().map_err(Error::Serve)?);
        let mut line = String::new();
        if let Some(stdout) = running.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(Error::Serve)?;
        }
        match line.trim_end().parse() {
            Ok(address) => Ok((running, address)),
            // It has said why on stderr.
            Err(_) => Err(Error::Serve(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // There is nothing to do if it cannot be waited for.
        let _ = self.0.wait();
    }
}
