//! `tidegate completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print a completion script for a shell.
///
/// For bash: `tidegate completions bash > /etc/bash_completion.d/tidegate`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tidegate", &mut script);
        print!("{}", String::from_utf8_lossy(&script));
        Ok(())
    }
}
