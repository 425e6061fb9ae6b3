//! What is read, what is refused and with which words.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SHIPPED: &str = include_str!("../../config/tidegate.toml");

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/tidegate"), [])
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, Path::new("."), variables)
}

#[test]
fn the_shipped_file_is_the_defaults_and_names_the_shipped_models() {
    let shipped = parse(SHIPPED).unwrap();
    let changes = difference(&parse("[models.digits]\n[models.car-loan]").unwrap(), &shipped);
    assert_eq!(changes, []);
    assert_eq!(shipped.repository.path, Path::new("/etc/tidegate/../models"));
}

#[test]
fn every_key_is_shown_in_the_shipped_file() {
    let defaults = parse("").unwrap();
    for key in defaults.keys.keys() {
        let name = key.rsplit('.').next().unwrap();
        let shown = SHIPPED
            .lines()
            .any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} =")));
        assert!(shown, "{key} is not shown");
    }
}

#[test]
fn problems_name_key_line_and_what_was_expected() {
    for (text, expected) in [
        (
            "[limits]\n\nbody = \"64 miles\"",
            "line 3: limits.body: invalid value: string \"64 miles\", expected a size such as \"64MiB\"",
        ),
        (
            "[limits]\nbody = true",
            "line 2: limits.body: invalid type: boolean `true`, expected a size",
        ),
        (
            "[limits]\ndeadline = 5",
            "line 2: limits.deadline: invalid type: integer `5`, expected a duration with a unit",
        ),
        ("[limits]\ndeadline = \"0s\"", "line 2: limits.deadline: must be at least 1ms, got 0s"),
        ("[limits]\nconnections = -1", "line 2: limits.connections: "),
        ("[limits]\nin_flight = 0", "line 2: limits.in_flight: must be at least 1, got 0"),
        (
            "[limits]\nbodi = \"1MiB\"",
            "line 2: limits.bodi: unknown field `bodi`, expected one of `body`",
        ),
        ("[limits]\nbodi = \"1MiB\"", "did you mean `body`?"),
        ("[limit]", "did you mean `limits`?"),
        (
            "[server]\nhttp = \"8000\"",
            "line 2: server.http: expected an address and a port such as \"127.0.0.1:8000\", got \"8000\"",
        ),
        (
            "[server]\nadmin = \"127.0.0.1:8000\"",
            "line 2: server.admin: must differ from server.http",
        ),
        (
            "[server]\nio_threads = 0",
            "line 2: server.io_threads: expected \"auto\" or a number from 1 to 512, got 0",
        ),
        ("[server]\nio_threads = \"many\"", "got \"many\""),
        (
            "[log]\naccess = \"some\"",
            "unknown variant `some`, expected one of `all`, `errors`, `off`",
        ),
        ("[models.\"a b\"]", "models.a b: a model's name has letters"),
        (
            "[models.m]\nversions = \"newest\"",
            "line 2: models.m.versions: expected \"latest\", \"all\", { latest = 2 } or a list of version numbers, got \"newest\"",
        ),
        ("[models.m]\nversions = []", "expected version numbers from 1 on, got []"),
        ("[models.m]\nversions = { latest = 0 }", "models.m.versions: must be at least 1, got 0"),
        ("[models.m]\naliases = { 1st = 1 }", "an alias begins with a letter"),
        (
            "[models.m]\ndigests = { 1 = \"sha256:beef\" }",
            "expected \"sha256:\" and 64 hexadecimal digits, got \"sha256:beef\"",
        ),
        (
            "[models.m]\ndigests = { one = \"sha256:beef\" }",
            "expected a version number, got \"one\"",
        ),
        (
            "[models.m.batching]\nmax_batch = 100000",
            "models.m.batching.max_batch: must be at most 65536, got 100000",
        ),
        (
            "[models.m.signature]\ninputs = [{ name = \"x\", datatype = \"FLOAT\", shape = [1] }]\noutputs = []",
            "tensor 'x': expected a datatype of BOOL, UINT8",
        ),
        (
            "[models.m.signature]\ninputs = [{ name = \"x\", datatype = \"FP32\", shape = [0] }]\noutputs = []",
            "expected dimensions from 1 on, or -1 for a free one, got 0",
        ),
        ("[server\n", "line 1: "),
    ] {
        let errors = parse(text).expect_err(text).to_string();
        assert!(errors.contains(expected), "{text}\n    gave: {errors}\nexpected: {expected}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let errors =
        parse("[limits]\nin_flight = 0\nconnections = 0\n[server]\nhttp = \"x\"").unwrap_err();
    let keys: Vec<_> = errors.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["server.http", "limits.connections", "limits.in_flight"]);
}

#[test]
fn the_environment_overrides_and_is_blamed_for_its_own_mistakes() {
    let text = "[models.car-loan]\nprimary = 1";
    let config = with_environment(
        text,
        &[
            ("TIDEGATE_LIMITS__BODY", "1MiB"),
            ("TIDEGATE_LIMITS__IN_FLIGHT", "7"),
            ("TIDEGATE_SERVER__HTTP", "0.0.0.0:80"),
            ("TIDEGATE_MODELS__CAR_LOAN__PRIMARY", "2"),
            ("TIDEGATE_LOG__ACCESS", "off"),
            ("TIDEGATE_CONFIG", "elsewhere.toml"),
            ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
            ("OTHER__THING", "1"),
        ],
    )
    .unwrap();
    assert_eq!(config.limits.body, 1 << 20);
    assert_eq!(config.limits.in_flight, 7);
    assert_eq!(config.server.http.to_string(), "0.0.0.0:80");
    assert_eq!(config.models["car-loan"].primary, Some(Primary::Version(2)));
    assert_eq!(config.log.access, Access::Off);
    assert_ne!(config.digest, parse(text).unwrap().digest);
    for (variable, value, expected) in [
        (
            "TIDEGATE_LIMITS__BODY",
            "bad",
            "environment variable TIDEGATE_LIMITS__BODY: limits.body: invalid value: string \"bad\", expected a size",
        ),
        (
            "TIDEGATE_LIMITS__BODI",
            "1",
            "environment variable TIDEGATE_LIMITS__BODI: limits.bodi: unknown field `bodi`",
        ),
        ("TIDEGATE_NOTHING__HERE", "1", "unknown field `nothing`"),
        ("TIDEGATE_LIMITS__BODY__DEEPER", "1", "invalid type: map"),
    ] {
        let errors = with_environment(text, &[(variable, value)]).expect_err(variable).to_string();
        assert!(errors.contains(expected), "{errors}\nexpected: {expected}");
    }
}

#[test]
fn settings_of_a_model_come_from_three_places() {
    let config = parse(
        "[defaults]\nversions = \"all\"\nowner = \"everybody\"\ndeadline = \"9s\"\n\
         [models.m]\ndeadline = \"1s\"\nprimary = \"stable\"",
    )
    .unwrap();
    let file = "owner = \"me\"\naliases = { stable = 3 }\ndeadline = \"5s\"";
    let model = config.model("m", Some(file)).unwrap();
    assert_eq!(model.versions, Versions::All);
    assert_eq!(model.owner.as_deref(), Some("me"));
    assert_eq!(model.deadline, Some(Duration::from_secs(1)));
    assert_eq!(model.primary, Some(Primary::Alias("stable".to_owned())));
    let error = config.model("m", None).unwrap_err().to_string();
    assert!(error.contains("primary: there is no alias 'stable'"), "{error}");
    let other = config.model("other", Some("versions = [4, 2]")).unwrap();
    assert_eq!(other.versions, Versions::Listed(vec![4, 2]));
    let error = config.model("m", Some("\nversion = 1")).unwrap_err().to_string();
    assert!(
        error.contains("line 2: version: unknown field `version`")
            && error.contains("did you mean `versions`?"),
        "{error}"
    );
}

#[test]
fn differences_say_what_needs_a_restart() {
    let before = parse("[models.m]\nprimary = 1").unwrap();
    let after = parse("# a comment changes nothing\n[server]\nhttp = \"127.0.0.1:9\"\n[limits]\nbody = \"1KiB\"\n[models.m]").unwrap();
    let changes: Vec<_> = difference(&before, &after).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "limits.body: \"64MiB\" -> \"1KiB\" (applies at once)",
            "models.m.primary: 1 -> not set (applies at once)",
            "server.http: \"127.0.0.1:8000\" -> \"127.0.0.1:9\" (needs a restart)",
        ]
    );
    assert_eq!(parse("# a").unwrap().digest, parse("# b").unwrap().digest);
}

proptest! {
    #[test]
    fn no_change_of_the_file_makes_the_reader_panic(position in 0..SHIPPED.len(), text in ".{0,3}") {
        let start = (0..=position).rev().find(|&at| SHIPPED.is_char_boundary(at)).unwrap();
        let changed = format!("{}{text}{}", &SHIPPED[..start], &SHIPPED[start..]);
        if let Ok(config) = parse(&changed) {
            prop_assert_eq!(difference(&config, &config), []);
        }
    }
}
