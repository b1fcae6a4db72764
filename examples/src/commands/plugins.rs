//! `tamarack plugins`: what can be loaded, where it comes from, and what failed to load.

use super::{model::PluginArgs, output};
use crate::table::{Side, Table};
use clap::Args;
use std::fmt::Write;
use tamarack::plugins::{Listed, Listing};

/// Lists architectures and where they come from.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugins
  tamarack plugins --plugins ./target/release --json

Where several plugins serve one model type, a directory given later wins over one given earlier, any
directory wins over the plugins that are linked in, and the table says what is shadowed.")]
pub struct Plugins {
    #[command(flatten)]
    plugins: PluginArgs,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Plugins {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let listing = self.plugins.registry().list();
        if self.json { output::json(&listing) } else { output::text(&table(&listing)) }
    }
}

fn table(listing: &Listing) -> String {
    let mut text = String::new();
    let left = |name| (name, Side::Left);
    let mut table = Table::new(["NAME", "MODEL TYPES", "PACKAGE", "SOURCE", "SHADOWED"].map(left));
    for plugin in &listing.plugins {
        let package = format!("{} {}", plugin.package, plugin.version);
        let types = plugin.model_types.join(", ");
        table.row([plugin.name.clone(), types, package, plugin.source.to_string(), shadow(plugin)]);
    }
    let _ = match listing.plugins.is_empty() {
        true => writeln!(text, "No plugins: name a directory with --plugins DIR."),
        false => write!(text, "{table}"),
    };
    if !listing.failures.is_empty() {
        text += "\nFailed to load:\n";
    }
    for failure in &listing.failures {
        let _ = writeln!(text, "  {}: {}", failure.path.display(), failure.reason);
    }
    text
}

/// `all by linked`, or `mistral by /plugins/libmistral.so` where some model types are left to it.
fn shadow(plugin: &Listed) -> String {
    let mut winners: Vec<String> = plugin.shadowed_by.values().map(ToString::to_string).collect();
    winners.dedup();
    match &winners[..] {
        [winner] if plugin.shadowed_by.len() == plugin.model_types.len() => format!("by {winner}"),
        _ => {
            let each = plugin.shadowed_by.iter().map(|(model_type, winner)| format!("{model_type} by {winner}"));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}
