//! How the command ends when something goes wrong: one message on stderr and an exit code.

use std::{fmt, io, process::ExitCode};

/// The command line asks for something that does not go together: exit code 2, as clap has it.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nFor more information, try '--help'.", self.0)
    }
}

/// Says what went wrong. A reader that closes its end of the pipe (`tamarack ... | head`) has had
/// enough, and that is no error.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Err(error) if !is_broken_pipe(&error) => {
            // Causes are in the message already, see `tamarack::Error`.
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("error: {error}\n"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
        _ => ExitCode::SUCCESS,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
