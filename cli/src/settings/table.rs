//! The table of settings: flags, environment variables, the file and `config show` all follow it.

/// One setting. Its flag is `--name`, its environment variable `TOKENMETER_NAME`, its key in the
/// file `name`, each with the dashes that are usual there.
#[derive(Debug)]
pub(super) struct Setting {
    /// Lower case with dashes.
    pub(super) name: &'static str,
    /// What stands for the value in help texts.
    pub(super) value: &'static str,
    /// Empty: none.
    pub(super) default: &'static str,
    /// Whether it may be given several times.
    pub(super) list: bool,
    /// Which commands take it.
    pub(super) reach: Reach,
    /// One line.
    pub(super) help: &'static str,
}

/// Which commands take a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every command.
    All,
    /// Those that run, check or show the server.
    Server,
}

const fn setting(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, value, default, list: false, reach: Reach::Server, help }
}

const fn list(mut setting: Setting) -> Setting {
    setting.list = true;
    setting
}

const fn everywhere(mut setting: Setting) -> Setting {
    setting.reach = Reach::All;
    setting
}

/// All settings but `--config`, which says where the file is.
pub(super) const SETTINGS: &[Setting] = &[
    everywhere(setting("data-dir", "DIR", "./tokenmeter-data", "Where everything is kept")),
    setting(
        "listen",
        "ADDRESS",
        "127.0.0.1:8080",
        "Where clients connect; port 0 picks a free one",
    ),
    setting(
        "ops-listen",
        "ADDRESS",
        "127.0.0.1:9464",
        "Where metrics, health and reconciliation are served; not for clients",
    ),
    list(setting("role", "ROLE", "ingest,aggregator,api", "Which parts this process runs")),
    everywhere(setting(
        "kafka-brokers",
        "HOST:PORT",
        "",
        "Kafka, the cluster's event log; with the three URLs below it replaces the data directory",
    )),
    everywhere(setting("redis-url", "URL", "", "Redis, the cluster's quota counters")),
    everywhere(setting(
        "clickhouse-url",
        "URL",
        "",
        "ClickHouse, the cluster's events and summaries",
    )),
    everywhere(setting("postgres-url", "URL", "", "Postgres, the cluster's accounts and cursors")),
    everywhere(setting(
        "kafka-topic",
        "NAME",
        "usage-events.v1",
        "Topic that `migrate` makes or begins to count",
    )),
    everywhere(setting(
        "kafka-partitions",
        "NUMBER",
        "64",
        "Its partitions, fixed when it is made; 8 to 16 are enough for one small machine",
    )),
    everywhere(setting(
        "kafka-replication",
        "NUMBER",
        "auto",
        "Copies of each partition; auto: 3 where there are as many brokers, else 1",
    )),
    everywhere(list(setting(
        "kafka-option",
        "NAME=VALUE",
        "",
        "Passed to every Kafka client: security.protocol, sasl.*, ssl.*",
    ))),
    setting(
        "kafka-session-timeout",
        "DURATION",
        "10s",
        "How long a silent aggregator keeps its partitions",
    ),
    setting(
        "duplicate-memory",
        "MEBIBYTES",
        "96",
        "Memory for ids that were counted lately; when it is full, repeats without a time in them \
         are told for less than a day",
    ),
    setting("clock-bound", "DURATION", "1s", "How far the clocks of all machines may lie apart"),
    setting(
        "on-counter-outage",
        "ACTION",
        "refuse",
        "What becomes of events while Redis is away: refuse (503), or record (limits may be passed)",
    ),
    setting(
        "payments",
        "MODE",
        "none",
        "How paid plans are had: none (admins grant them) or trust (whoever asks)",
    ),
    setting("access-token-ttl", "DURATION", "15m", "How long an access token is valid"),
    setting("refresh-token-ttl", "DURATION", "30d", "How long a login lasts without being used"),
    list(setting("cors-origin", "ORIGIN", "", "Web origins whose pages may call the API")),
    list(setting(
        "trusted-proxy",
        "NETWORK",
        "",
        "Proxies whose X-Forwarded-For decides the client address",
    )),
    everywhere(setting("plans", "FILE", "", "Plan catalogue (TOML) in place of the built-in one")),
    everywhere(setting(
        "models",
        "FILE",
        "",
        "Model catalogue (TOML) in place of the built-in one",
    )),
    setting("unknown-model-tier", "TIER", "", "Tier of models that the catalogue does not know"),
    everywhere(setting(
        "log-retention",
        "DURATION",
        "7d",
        "How long records that were counted stay in the event log",
    )),
    setting(
        "flush-interval",
        "DURATION",
        "auto",
        "From one commit of counted events to the next: shorter shows them sooner, longer costs the \
         stores less; auto: 500ms on a single node, 1s in a cluster",
    ),
    everywhere(setting(
        "alert-webhook",
        "URL",
        "",
        "Who is told of users near a limit of their plan, as Standard Webhooks has it",
    )),
    everywhere(setting(
        "alert-webhook-secret-file",
        "FILE",
        "",
        "File whose first line signs these messages: whsec_ and the base64 of 24 to 64 bytes",
    )),
    setting(
        "max-connections",
        "NUMBER",
        "10000",
        "Open client connections; more wait to be accepted",
    ),
    setting(
        "reconcile-interval",
        "DURATION",
        "10m",
        "How often the books are compared by themselves",
    ),
    everywhere(setting(
        "log-format",
        "FORMAT",
        "auto",
        "text, json, or auto: text on a terminal, JSON otherwise",
    )),
];

/// The setting of that name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// `data_dir` of `data-dir`.
    pub(super) fn key(&self) -> String {
        self.name.replace('-', "_")
    }
}

/// The environment variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("TOKENMETER_{}", flag.replace('-', "_").to_uppercase())
}
