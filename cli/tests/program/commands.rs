//! The command line: settings with their origin, one server a directory, files of the future.

use serde_json::Value;

use crate::server::{Installation, text};
use crate::tour::{call, register, wait_for_tokens};

#[test]
fn settings_are_shown_with_their_origin_and_errors_name_it() {
    let installation = Installation::new();
    let file = installation.path().join("settings.toml");
    std::fs::write(&file, "log_retention = \"3d\"\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = installation.command(&["config", "show", "--json", "--config", file]);
    let shown = command.env("TOKENMETER_LISTEN", "127.0.0.1:2").output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let of = |name: &str| {
        let all = shown["settings"].as_array().unwrap();
        let one = all.iter().find(|one| one["name"] == name).unwrap();
        format!("{} from {}", one["value"].as_str().unwrap_or("-"), one["origin"].as_str().unwrap())
    };
    assert_eq!(of("listen"), "127.0.0.1:2 from environment variable TOKENMETER_LISTEN");
    assert_eq!(of("log-retention"), format!("3d from file {file}"));
    assert_eq!(of("payments"), "none from default");

    let mut command = installation.command(&["--payments", "stripe"]);
    let refused = command.env("TOKENMETER_OPS_LISTEN", "there").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("payments = \"stripe\" (from flag --payments)"), "{said}");
    assert!(
        said.contains("= \"there\" (from environment variable TOKENMETER_OPS_LISTEN)"),
        "{said}"
    );
    let checked = installation.run(&["config", "check", "--log-retention", "x"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(installation.run(&["config", "check"]).status.success());
    assert!(!installation.data_dir().exists(), "looking at settings makes nothing");
}

#[test]
fn wrong_use_ends_with_2() {
    let installation = Installation::new();
    for arguments in [
        &["frobnicate"] as &[&str],
        &["--kafka-brokers", "x"],
        &["key", "create", "--name", "x", "--scope", "everything"],
        &["user", "create", "--name", "x"],
        &["user", "create", "--name", "x", "--email", "x", "--plan", "free"],
        &["user", "create", "--name", "x", "--email", "x@y", "--plan", "gold"],
        &["replay", "x.csv", "--users", "0"],
    ] {
        assert_eq!(installation.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn all_memory_is_mimallocs() {
    let installation = Installation::new();
    let mut version = installation.command(&["--version"]);
    let said = version.env("MIMALLOC_VERBOSE", "1").output().unwrap();
    assert!(text(&said.stderr).contains("mimalloc: process init"), "{}", text(&said.stderr));
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let installation = Installation::new();
    let server = installation.start();
    let second = installation.run(&["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("process {}", server.pid())), "{said}");
    assert_eq!(server.http.get("/health/live").status, 200);
}

#[test]
fn a_directory_written_by_a_newer_version_is_refused_and_left_alone() {
    for file in ["accounts.db", "ledger.db", "log.db"] {
        let installation = Installation::new();
        installation.json(&["migrate"]);
        let path = installation.data_dir().join(file);
        let newer = rusqlite::Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        for arguments in [
            &["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"] as &[&str],
            &["migrate"],
        ] {
            let refused = installation.run(arguments);
            assert_eq!(refused.status.code(), Some(1), "{file} {arguments:?}");
            let said = text(&refused.stderr);
            assert!(said.contains("newer version") && said.contains(file), "{said}");
        }
        let version: u32 = newer.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 99);
    }
}

#[test]
fn a_backup_taken_while_it_runs_restores_everything_acknowledged() {
    let installation = Installation::new();
    let mut server = installation.start();
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).expect(201);
    let archive = installation.path().join("backup.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(installation.json(&["backup", archive])["file"], archive);
    assert_eq!(installation.run(&["backup", archive]).status.code(), Some(1), "never overwritten");
    ada.post("/api/tokens/me/track", &call("call-2", 1, 1)).expect(201);
    server.kill();

    let restored = Installation::new();
    std::fs::create_dir(restored.data_dir()).unwrap();
    let file = std::fs::File::open(archive).unwrap();
    tar::Archive::new(file).unpack(restored.data_dir()).unwrap();
    let server = restored.start();
    let ada = ada.at(&server.http.url);
    wait_for_tokens(&ada, 890);
    assert_eq!(ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).status, 200);
    ada.post("/api/tokens/me/track", &call("call-2", 1, 1)).expect(201);
    wait_for_tokens(&ada, 892);
    assert!(restored.run(&["reconcile"]).status.success());
}

#[test]
fn doctor_and_migrate_work_before_beside_and_after_a_server() {
    let installation = Installation::new();
    let doctor =
        || installation.json(&["doctor", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    assert_eq!(doctor()["ok"], true);
    assert_eq!(installation.json(&["migrate"])["files"].as_array().unwrap().len(), 3);
    let server = installation.start();
    let checks = doctor();
    let checks = checks["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["name"].as_str().unwrap().starts_with("server")));
    installation.json(&["migrate"]);
    assert_eq!(server.terminate().code(), Some(0));
    std::fs::write(installation.data_dir().join("ledger.db"), vec![7; 9000]).unwrap();
    let found = installation.run(&["doctor", "--json", "--ops-listen", "127.0.0.1:0"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found.stdout).contains("ledger.db"));
}
