//! How the command ends when something goes wrong: one message on stderr and an exit code.

use crate::output;
use std::{fmt, io, process::ExitCode};

/// The command line asks for what does not go together: exit code 2, as clap has it.
#[derive(Debug)]
pub struct Usage(pub String);

/// The user pressed Ctrl-C: exit code 130, as shells have it, and nothing more to say.
#[derive(Debug)]
pub struct Interrupted;

impl std::error::Error for Usage {}
impl std::error::Error for Interrupted {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nFor more information, try '--help'.", self.0)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

/// Says what went wrong. A reader that closes its end of the pipe (`tamarack ... | head`) has had
/// enough, and that is no error.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    // Causes are in the message already, see `tamarack::Error`.
    output::note(format_args!("error: {error}"));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// Writing to stdout is the only thing that fails with an error of the system's own.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
