//! Loads settings from a file, the environment and a flag, and shows where each value came from.
//!
//! ```text
//! cargo run -p contextkeep-config --example layered
//! EXAMPLE_POOL__SIZE=3 cargo run -p contextkeep-config --example layered
//! EXAMPLE_POOL__SISE=x cargo run -p contextkeep-config --example layered -- soon
//! ```
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::process::ExitCode;
use std::time::Duration;

use contextkeep_config::{Finding, Findings, Loader};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    /// Connections to the database.
    pool: Pool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Pool {
    /// The most connections that are open at once.
    #[schemars(range(min = 1))]
    size: u32,
    /// The most connections that stay open unused.
    idle: u32,
    /// How long a caller waits for one.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    timeout: Duration,
    /// What the database asks for.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    password: Option<SecretString>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            size: 10,
            idle: 5,
            timeout: Duration::from_secs(3),
            password: None,
        }
    }
}

fn validate(settings: &Settings, findings: &mut Findings) {
    let pool = &settings.pool;
    if pool.idle > pool.size {
        let finding = Finding::new("pool.idle", "is more than `size` allows to be open");
        findings.push(finding.involving("pool.size").hint("lower it, or raise `size`"));
    }
}

fn main() -> std::io::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("example.yaml");
    std::fs::write(&file, "pool:\n  idle: 4\n  password: s3cret\n")?;

    let mut loader = Loader::new().file(file).env("EXAMPLE_");
    if let Some(timeout) = std::env::args().nth(1) {
        loader = loader.flag("pool.timeout", timeout, "--timeout");
    }
    match loader.load(validate) {
        Ok(loaded) => {
            let Pool {
                size,
                idle,
                timeout,
                password,
            } = &loaded.value.pool;
            println!(
                "{size} connections, {idle} idle, {timeout:?}, password set: {}\n",
                password.is_some()
            );
            println!("{}", loaded.show());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            println!("{errors}");
            Ok(ExitCode::FAILURE)
        }
    }
}
