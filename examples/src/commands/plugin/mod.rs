//! `tamarack plugin`: for those who write plugins, and those who use other people's.

mod check;
mod crate_folder;
mod installed;
mod new;

use clap::{Args, Subcommand};

/// Writes, checks, installs and removes plugins.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugin new my_model               a crate that builds, with a small decoder to start from
  tamarack plugin check my_model             whether it keeps to the contract
  tamarack plugin install my_model           for all programs of this user
  tamarack plugin list
  tamarack plugin remove my_model

docs/writing-a-plugin.md goes through all of it.")]
pub struct Plugin {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    New(new::New),
    Check(check::Check),
    Install(installed::Install),
    List(installed::List),
    Remove(installed::Remove),
}

impl Plugin {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Subcommands::New(new) => new.run(),
            Subcommands::Check(check) => check.run(),
            Subcommands::Install(install) => install.run(),
            Subcommands::List(list) => list.run(),
            Subcommands::Remove(remove) => remove.run(),
        }
    }
}
