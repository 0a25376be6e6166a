//! `contextkeep config`: look at the configuration without starting anything.

use contextkeep_config::{Loaded, json_schema};

use super::output;
use crate::config::{AppConfig, without_effect};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say whether the configuration is good; exits with 2 and lists every problem if it is not
    Check,
    /// Show every value in effect and where it comes from; secrets are hidden
    Show,
    /// Print the JSON Schema, for editors
    Schema,
}

pub(super) fn run(command: &Command, loaded: &Loaded<AppConfig>) -> anyhow::Result<()> {
    match command {
        Command::Check => {
            for note in without_effect(loaded) {
                output::complain(&format!("note: {note}"));
            }
            Ok(output::print(b"the configuration is good\n")?)
        }
        Command::Show => Ok(output::print(loaded.show().as_bytes())?),
        Command::Schema => schema(),
    }
}

pub(super) fn schema() -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(&json_schema::<AppConfig>())?;
    text.push(b'\n');
    Ok(output::print(&text)?)
}
