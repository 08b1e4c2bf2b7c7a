//! The built binary, run on bytes or on files of a test.

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Unpacks with `gzip -dc`.
pub fn flate(packed: &[u8], out: &mut Vec<u8>) {
    let output = with(Command::new("gzip").arg("-dc"), packed);
    assert!(output.status.success(), "{output:?}");
    (&output.stdout[..]).read_to_end(out).expect("memory");
}

pub fn on(stdin: &[u8], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pertask"));
    with(command.arg("report").args(arguments), stdin)
}

pub fn with(command: &mut Command, stdin: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("to start");
    // It may have ended already, with an error that the test looks at.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin);
    child.wait_with_output().expect("to wait")
}

pub fn text_of(arguments: &[&str], stdin: &[u8]) -> String {
    text(&on(stdin, arguments))
}

pub fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).expect("JSON")
}

/// Returns the one line on stderr of a command that failed.
pub fn error(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("pertask: "), "{stderr}");
    stderr
}

pub fn read(path: &str) -> String {
    fs::read_to_string(path).expect("a file")
}

/// A folder of this test, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("pertask-report-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("UTF-8")
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
