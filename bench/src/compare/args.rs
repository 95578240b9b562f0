//! The flags of `compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
For every path it makes links between network namespaces (needs root), lets each transport do the same on its own link with \
the same seed, and repeats that in rounds: 200 requests of 256 bytes per second in an open loop (A), bulk (B), an unlimited \
link (C), and flows that share a bottleneck. What takes little of the processor is measured side by side.

DIR gets cells.jsonl, one line for each measurement, written at once; results.json; and a report. Ctrl-C ends at once and \
leaves a report of what there is; --resume goes on after the last line. Let nothing else run meanwhile. \
What the machine itself stood still for, as virtual ones do when their host is busy, for over 0.5 % of its time, is \
measured again at the end, twice at most and while the plan's time lasts (two hours; each --resume has as long again); \
the report says how much of that remains. \
The last line of standard output names the files as JSON.

Examples:
  sudo aetherflow-bench compare --quick
  sudo aetherflow-bench compare --out results
  sudo aetherflow-bench compare --out results --resume
  sudo aetherflow-bench compare --only rtt50-loss5,quantum-x10 --out some";

/// Arguments of `compare`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Within five minutes: fewer paths and peers, one round of 4 s
    #[arg(long)]
    pub quick: bool,
    /// Go on with what DIR lacks, or the machine disturbed, by the same plan and commit
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Folder of the results [default: aetherflow-compare-TIME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Another plan
    #[arg(long, value_enum, hide = true, conflicts_with = "quick")]
    pub plan: Option<PlanName>,
    /// One cell at a time, whatever it takes of the processor
    #[arg(long, hide = true)]
    pub alone: bool,
    /// Only measurements whose path or peer has one of these in its name
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// Which plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanName {
    /// Everything.
    Full,
    /// Enough to see where things stand.
    Quick,
    /// For the test of `compare` itself.
    Tiny,
}

impl PlanName {
    /// As results record it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Quick => "quick",
            Self::Tiny => "tiny",
        }
    }
}

impl CompareArgs {
    /// The plan and what is left of it, as results record it.
    pub fn plan_text(&self) -> String {
        let name = self.plan_name().name();
        if self.only.is_empty() { name.to_owned() } else { format!("{name}, only {}", self.only.join(",")) }
    }

    /// The plan that is asked for.
    pub fn plan_name(&self) -> PlanName {
        match self.plan {
            Some(plan) => plan,
            None if self.quick => PlanName::Quick,
            None => PlanName::Full,
        }
    }
}
