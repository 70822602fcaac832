use super::*;

fn read(arguments: &[&str]) -> (Result<Settings, SettingErrors>, Vec<Resolved>) {
    let program = crate::commands::program();
    let matches = program.try_get_matches_from(arguments).unwrap();
    Settings::read(&crate::commands::levels(&matches))
}

fn origin_of(found: &[Resolved], name: &str) -> String {
    let found = found.iter().find(|one| one.name == name).unwrap();
    format!("{} from {}", found.value.as_deref().unwrap_or("-"), found.origin)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn without_anything_every_setting_has_its_default() {
    let (settings, found) = read(&["tokenmeter"]);
    let settings = settings.unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.access_token_ttl, Duration::from_secs(900));
    assert_eq!(settings.payments, PaymentMode::None);
    assert!(settings.cors_origins.is_empty());
    assert_eq!(origin_of(&found, "listen"), "127.0.0.1:8080 from default");
    assert_eq!(origin_of(&found, "plans"), "- from default");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = file(
        "listen = \"127.0.0.1:1\"\nmax_connections = 7\ncors_origin = [\"https://a.org\", \"https://b.org\"]\n",
    );
    let path = file.path().to_str().unwrap();
    let (settings, found) =
        read(&["tokenmeter", "serve", "--config", path, "--listen", "127.0.0.1:2"]);
    let settings = settings.unwrap();
    assert_eq!(settings.listen.port(), 2);
    assert_eq!(settings.max_connections, 7);
    assert_eq!(settings.cors_origins, ["https://a.org", "https://b.org"]);
    assert_eq!(origin_of(&found, "listen"), "127.0.0.1:2 from flag --listen");
    assert_eq!(origin_of(&found, "max-connections"), format!("7 from file {path}"));
}

#[test]
fn an_inner_flag_wins_over_an_outer_one() {
    let (settings, _) =
        read(&["tokenmeter", "--listen", "127.0.0.1:1", "serve", "--listen", "127.0.0.1:2"]);
    assert_eq!(settings.unwrap().listen.port(), 2);
    let (settings, _) = read(&["tokenmeter", "--listen", "127.0.0.1:1", "serve"]);
    assert_eq!(settings.unwrap().listen.port(), 1);
}

#[test]
fn each_error_names_the_setting_its_value_and_its_origin() {
    let file = file("lisen = \"x\"\naccess_token_ttl = \"soon\"\n");
    let path = file.path().to_str().unwrap();
    let (settings, _) = read(&["tokenmeter", "--config", path, "--ops-listen", "here"]);
    let text = settings.unwrap_err().to_string();
    for line in [
        format!("setting lisen = \"x\" (from file {path}): there is no such setting"),
        format!("setting access-token-ttl = \"soon\" (from file {path}): must be a duration"),
        "setting ops-listen = \"here\" (from flag --ops-listen): must be an address".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[test]
fn what_this_build_cannot_do_is_refused_and_not_ignored() {
    let wrong = |arguments: &[&str]| read(arguments).0.unwrap_err().to_string();
    assert!(wrong(&["tokenmeter", "--payments", "stripe"]).contains("not in this version"));
    assert!(wrong(&["tokenmeter", "--role", "api"]).contains("all roles"));
    assert!(wrong(&["tokenmeter", "--role", "spam"]).contains("no role \"spam\""));
    let outage = wrong(&["tokenmeter", "--on-counter-outage", "ignore"]);
    assert!(outage.contains("must be refuse or record"));
    assert!(read(&["tokenmeter", "--role", "api,ingest", "--role", "aggregator"]).0.is_ok());
}

const CLUSTER: [&str; 9] = [
    "tokenmeter",
    "--kafka-brokers",
    "127.0.0.1:9092",
    "--redis-url",
    "redis://127.0.0.1/",
    "--clickhouse-url",
    "http://127.0.0.1:8123",
    "--postgres-url",
    "postgres://127.0.0.1/t",
];

#[test]
fn counting_keeps_the_pace_that_is_asked_for_or_suits_the_stores() {
    let interval = |arguments: &[&str]| read(arguments).0.map(|found| found.flush_interval());
    assert_eq!(interval(&["tokenmeter"]).unwrap(), Duration::from_millis(500));
    assert_eq!(interval(&CLUSTER).unwrap(), Duration::from_secs(1));
    let given = interval(&["tokenmeter", "--flush-interval", "250ms"]);
    assert_eq!(given.unwrap(), Duration::from_millis(250));
    for wrong in ["0s", "49ms", "11s", "soon"] {
        let error = interval(&["tokenmeter", "--flush-interval", wrong]).unwrap_err().to_string();
        assert!(error.contains("from 50ms to 10s"), "{error}");
    }
}

#[test]
fn a_cluster_has_all_four_servers_or_none() {
    let all = CLUSTER;
    let cluster = |arguments: &[&str]| read(arguments).0.unwrap().cluster;
    assert!(cluster(&["tokenmeter"]).is_none());
    let found = cluster(&all).unwrap();
    assert_eq!((found.topic.as_str(), found.partitions.get()), ("usage-events.v1", 64));
    let one_role: Vec<&str> = all.iter().copied().chain(["--role", "ingest"]).collect();
    let roles = read(&one_role).0.unwrap().roles;
    assert!(roles.ingest && !roles.aggregator && !roles.api);
    let error = read(&all[..7]).0.unwrap_err().to_string();
    assert!(error.contains("all four servers; missing: --postgres-url"), "{error}");
}

#[test]
fn a_bad_catalogue_is_told_with_its_file() {
    let plans = file("[[plan]]\nname = \"free\"\nfree = true\nmax_model_tier = \"nope\"\n");
    let path = plans.path().to_str().unwrap();
    let (settings, _) = read(&["tokenmeter", "--plans", path]);
    let text = settings.unwrap_err().to_string();
    assert!(text.contains(&format!("setting plans = {path:?} (from flag --plans)")), "{text}");
    assert!(text.contains("nope"), "{text}");
    let (settings, _) = read(&["tokenmeter", "--unknown-model-tier", "gpt-9"]);
    assert!(settings.unwrap_err().to_string().contains("there is no model tier \"gpt-9\""));
}
