//! The `tamarack` command.

mod commands;
mod errors;
mod output;
mod progress;
mod table;

use clap::{ArgAction, Parser, Subcommand};
use commands::{
    bench::Bench,
    chat::Chat,
    debug::Debug,
    devices::Devices,
    inspect::Inspect,
    plugin::Plugin,
    plugins::Plugins,
    pull::{Models, Pull, Remove},
    quantize::Quantize,
};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

// The linker drops a crate that nothing names, and its plugins with it.
#[cfg(feature = "static-plugins")]
use tamarack_plugins as _;

/// Language models on any GPU, every architecture a plugin.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  tamarack chat --model HuggingFaceTB/SmolLM2-135M-Instruct \"What is the capital of France?\"
  tamarack chat --model model.gguf          a conversation
  tamarack inspect ./my-model               what it is made of, and the memory it takes
  tamarack plugins                          which models can be loaded

'tamarack COMMAND --help' has the options and more examples.")]
struct Command {
    #[command(subcommand)]
    command: Subcommands,
    /// Say more on stderr about what happens; twice for more still
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Subcommands {
    Chat(Chat),
    Pull(Pull),
    Models(Models),
    Remove(Remove),
    Plugins(Plugins),
    Plugin(Plugin),
    Inspect(Inspect),
    Devices(Devices),
    Bench(Bench),
    Quantize(Quantize),
    Debug(Debug),
}

fn main() -> ExitCode {
    leave_device_select_out();
    run()
}

/// Mesa's Vulkan layer VK_LAYER_MESA_device_select asks the desktop which GPU it uses, to list that one first. Without a desktop
/// libwayland then writes `error: XDG_RUNTIME_DIR is invalid or not set` to stderr. Devices have an order of their own here, so
/// the layer is left out by the variable that it has for that, unless the user tells it which GPU to list first.
fn leave_device_select_out() {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if ["XDG_RUNTIME_DIR", "NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT", "DRI_PRIME"].into_iter().any(is_set) {
        return;
    }
    // SAFETY: this is the process's only thread.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("NODEVICE_SELECT", "1");
    }
}

#[tokio::main]
async fn run() -> ExitCode {
    let Command { command, verbose } = Command::parse();
    log(verbose);
    errors::exit_code(match command {
        Subcommands::Chat(chat) => chat.run().await,
        Subcommands::Pull(pull) => pull.run().await,
        Subcommands::Models(models) => models.run(),
        Subcommands::Remove(remove) => remove.run(),
        Subcommands::Plugins(plugins) => plugins.run(),
        Subcommands::Plugin(plugin) => plugin.run(),
        Subcommands::Inspect(inspect) => inspect.run().await,
        Subcommands::Devices(devices) => devices.run(),
        Subcommands::Bench(bench) => bench.run().await,
        Subcommands::Quantize(quantize) => quantize.run().await,
        Subcommands::Debug(debug) => debug.run().await,
    })
}

/// Logs go to stderr; `RUST_LOG` has the last word on which.
fn log(verbose: u8) {
    let default = ["tamarack=error", "tamarack=info,wgpu=warn", "tamarack=debug,wgpu=info"][verbose.min(2) as usize];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time();
    logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
}
