//! `cargo xtask chaos`: the fault run of the server's integration tests, as long and as often as asked for, and what it
//! found in one table.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::sh;

/// Arguments of `cargo xtask chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long each run works, in minutes
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// The same in seconds; 120 if neither is given
    #[arg(long)]
    seconds: Option<u64>,
    /// What breaks: mixed, servers, redis, replicas, primary or none
    #[arg(long, default_value = "mixed")]
    schedule: String,
    /// Servers and clients as they are built for users: more operations in the same time, after a longer build
    #[arg(long)]
    release: bool,
    /// Measure what each operation does while one dependency is down, frozen or slow, instead
    #[arg(long, conflicts_with_all = ["seed", "seeds", "minutes", "seconds", "schedule"])]
    table: bool,
}

const RUN: &str = "chaos::no_guarantee_breaks_while_everything_does";
const TABLE: &str = "chaos::table::one_dependency_down_is_survived";

/// Runs it; fails if a guarantee broke.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.table {
        return test(args, TABLE, &[("CHAOS_TABLE", "full".to_owned())], |_| {});
    }
    let seconds = args
        .seconds
        .or(args.minutes.map(|minutes| minutes * 60))
        .unwrap_or(120);
    let mut sums = Sums::default();
    let mut broken = Vec::new();
    for seed in args.seed..args.seed + args.seeds {
        let variables = [
            ("CHAOS_SCHEDULE", args.schedule.clone()),
            ("CHAOS_SEED", seed.to_string()),
            ("CHAOS_SECONDS", seconds.to_string()),
        ];
        if let Err(error) = test(args, RUN, &variables, |line| sums.see(line)) {
            sh::check_interrupted()?;
            eprintln!("seed {seed}: {error:#}");
            broken.push(seed);
        }
    }
    println!("{}", sums.table());
    if !broken.is_empty() {
        bail!("a guarantee broke, or the run did, with these seeds: {broken:?}");
    }
    Ok(())
}

/// One test of the binary, with its output passed on as it comes.
fn test(args: &Args, name: &str, variables: &[(&str, String)], see: impl FnMut(&str)) -> Result<()> {
    let mut command = sh::command("cargo", ["test", "--quiet", "--package", "contextkeep-server"]);
    if args.release {
        command.arg("--release");
    }
    command.args(["--test", "it", "--", "--ignored", "--nocapture", "--exact", name]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let status = sh::tee(&mut command, see)?;
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(())
}

/// What the runs counted, added up by section and name.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    counts: BTreeMap<(String, String), u64>,
}

impl Sums {
    /// Takes a line of a run's report: a section, a name, and its count; what follows a comma is left alone.
    fn see(&mut self, line: &str) {
        let Some((section, rest)) = line.split_once(": ") else {
            return;
        };
        if section == "run" {
            self.runs += 1;
        }
        if !["operations", "writes", "faults", "violations"].contains(&section) {
            return;
        }
        let rest = rest.split_once(", answered").map_or(rest, |(before, _)| before);
        if let Some((name, count)) = rest.rsplit_once(' ')
            && let Ok(count) = count.parse::<u64>()
        {
            *self
                .counts
                .entry((section.to_owned(), name.to_owned()))
                .or_default() += count;
        }
    }

    fn table(&self) -> String {
        let mut table = format!("{} runs\n\n| | | count |\n| --- | --- | ---: |\n", self.runs);
        for ((section, name), count) in &self.counts {
            table.push_str(&["| ", section, " | ", name, " | ", &count.to_string(), " |\n"].concat());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_added_up() {
        let mut sums = Sums::default();
        for line in [
            "run: mixed seed 1, 60 s, 16 clients",
            "operations: append 745, answered 609",
            "faults: server frozen (SIGSTOP) 4",
            "violations: G4 below its floor 0",
            "G4 below its floor: below 80: client 4",
            "operations: append 5, answered 5",
            "violations: G4 below its floor 2",
        ] {
            sums.see(line);
        }
        assert_eq!(sums.runs, 1);
        let count = |section: &str, name: &str| sums.counts[&(section.to_owned(), name.to_owned())];
        assert_eq!(count("operations", "append"), 750);
        assert_eq!(count("faults", "server frozen (SIGSTOP)"), 4);
        assert_eq!(count("violations", "G4 below its floor"), 2);
        assert_eq!(sums.counts.len(), 3);
        assert!(sums.table().contains("| operations | append | 750 |"));
    }
}
