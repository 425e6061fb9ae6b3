//! `tidegate compare`

mod page;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{Client, ClientError, unexpected};
use super::watch::watch;
use super::{Failure, print_raw};
use crate::monitor::times::now_ms;
use page::{OfModel, Overview};

/// Show how the answers of shadows compare with those of the primary.
///
/// Without --model, every pair of versions that is compared; with it, a table for each pair: how
/// often they agree, output by output, how far their numbers are apart, which class is taken for
/// which, who fails and who is slower, and the requests on which they differ most.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The model
    #[arg(long, short)]
    model: Option<String>,
    /// A candidate: a version number, or the address of a remote shadow
    #[arg(long, requires = "model")]
    candidate: Option<String>,
    /// The version that answers, where pairs with several ones are known
    #[arg(long, requires = "model", value_name = "VERSION")]
    primary: Option<u64>,
    /// Disagreements shown at most, worst first
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    limit: usize,
    /// The server's admin listener
    #[arg(long, default_value = "http://127.0.0.1:8002")]
    url: String,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print the server's JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = Client::new(&self.url)?;
        if !self.watch {
            print_raw(&self.look(&client)?);
            return Ok(());
        }
        watch(self.json, || self.look(&client))
    }

    /// What is to be printed now.
    fn look(&self, client: &Client) -> Result<String, ClientError> {
        let document: Value = client.read(&self.path())?;
        if self.json {
            return Ok(format!("{document}\n"));
        }
        if self.model.is_some() {
            let of: OfModel =
                serde_json::from_value(document).map_err(|error| unexpected(&error))?;
            return Ok(page::model(&of, self.limit, now_ms()));
        }
        let of: Overview = serde_json::from_value(document).map_err(|error| unexpected(&error))?;
        Ok(page::overview(&of, now_ms()))
    }

    fn path(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let Some(model) = &self.model else { return "/api/v1/compare".to_owned() };
        let primary = self.primary.map(|primary| format!("primary={primary}"));
        let candidate = self.candidate.as_deref().map(|c| format!("candidate={}", encoded(c)));
        let query: Vec<String> = primary.into_iter().chain(candidate).collect();
        format!("/api/v1/compare/{}?{}", encoded(model), query.join("&"))
    }
}
