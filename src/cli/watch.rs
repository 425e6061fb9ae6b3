//! `--watch`: what a server says, again every second.

use std::thread::sleep;
use std::time::Duration;

use super::client::ClientError;
use super::{Failure, print_raw};

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what `look` gives, until Ctrl-C: on a terminal in place, as far as it has lines; JSON, and what
/// is piped on, one after the other.
pub(super) fn watch(
    is_json: bool,
    look: impl Fn() -> Result<String, ClientError>,
) -> Result<(), Failure> {
    let screen = console::Term::stdout();
    loop {
        let text = match look() {
            Ok(text) => text,
            // A server that restarts is waited for; one that says no is believed.
            Err(error @ ClientError::Unreachable { .. }) => format!("{error}\n"),
            Err(error) => return Err(error.into()),
        };
        if screen.is_term() && !is_json {
            screen.clear_screen()?;
            let height = usize::from(screen.size().0).saturating_sub(1);
            let lines: Vec<&str> = text.lines().take(height).collect();
            print_raw(&format!("{}\n", lines.join("\n")));
        } else {
            print_raw(&text);
        }
        sleep(INTERVAL);
    }
}
