//! Files whose bytes are not what was written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use metering::accounts::{Accounts, UserQuery};
use metering::usage::{
    Books, EventLog, EventSource, LedgerLookup, Offset, Partition, UsageLedger, UsageReports,
};
use stores::sqlite::OpenError;
use tempfile::TempDir;

use crate::contract::accounts::service_subject;
use crate::contract::counting::{Log, OCTOBER, PARTITION, event as usage, key, period, user};
use crate::contract::event_log::event;
use crate::{now, open_accounts, open_ledger, open_log};

const EVENTS: u64 = 3000;
const PAGE: u64 = 4096;

/// A directory in use until a moment ago: everything stands in the files themselves.
async fn used() -> (TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let accounts = open_accounts(directory.path()).unwrap();
    let log = open_log(directory.path()).unwrap();
    let mut counted = Log::default();
    for number in 0..EVENTS {
        counted.append(usage(user((number % 200) as u8), &format!("event {number}")));
    }
    for number in 0..100 {
        accounts.create(service_subject(&format!("subject {number}"))).await.unwrap();
        let events = (0..EVENTS / 100).map(|place| event(&format!("{number}-{place}"), now()));
        log.append(events.collect(), None).await.unwrap();
    }
    let ledger = open_ledger(directory.path()).unwrap();
    counted.count(&ledger).await.unwrap();
    (directory, counted)
}

#[tokio::test]
async fn a_clean_end_leaves_everything_in_the_files_themselves() {
    let (directory, _) = used().await;
    {
        let accounts = open_accounts(directory.path()).unwrap();
        let ledger = open_ledger(directory.path()).unwrap();
        let log = open_log(directory.path()).unwrap();
        let subject = service_subject("another");
        let id = accounts.create(subject).await.unwrap().id;
        log.append(vec![event("another", now())], None).await.unwrap();
        ledger.erase_metadata(user(1)).await.unwrap();
        for _ in 0..10 {
            accounts.find(id).await.unwrap();
            ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
            log.read(PARTITION, Offset::default(), 10, Duration::ZERO).await.unwrap();
        }
    }
    let mut files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["accounts.db", "ids.db", "ledger.db", "log.db"]);
}

fn open_for_writing(file: &Path) -> File {
    OpenOptions::new().write(true).open(file).unwrap()
}

fn pages(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len() / PAGE
}

fn open(directory: &Path, file: &str) -> Result<(), OpenError> {
    match file {
        "log.db" => open_log(directory).map(drop),
        "ledger.db" => open_ledger(directory).map(drop),
        _ => open_accounts(directory).map(drop),
    }
}

/// The file is refused, with its name and what to do; and left as it is.
fn refused(directory: &Path, file: &str) {
    let before = std::fs::read(directory.join(file)).unwrap();
    let error = open(directory, file).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    let path = directory.join(file).display().to_string();
    assert!(text.starts_with(&format!("{path} is damaged")), "{text}");
    assert!(text.contains("backup"), "{text}");
    assert!(std::fs::read(directory.join(file)).unwrap() == before, "{file} was changed");
}

#[tokio::test]
async fn a_file_with_another_header_is_refused_with_what_to_do() {
    let (directory, _) = used().await;
    for file in ["log.db", "ledger.db", "accounts.db"] {
        open_for_writing(&directory.path().join(file)).write_all_at(&[0x55; 100], 0).unwrap();
        refused(directory.path(), file);
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_refused_with_what_to_do() {
    let (directory, _) = used().await;
    for file in ["log.db", "ledger.db", "accounts.db"] {
        let path = directory.path().join(file);
        open_for_writing(&path).set_len(pages(&path) / 2 * PAGE + 17).unwrap();
        refused(directory.path(), file);
    }
}

#[tokio::test]
async fn a_ledger_without_its_file_is_counted_again_from_the_log() {
    let (directory, mut log) = used().await;
    let ids: Vec<_> = (0..EVENTS)
        .map(|number| key(&usage(user((number % 200) as u8), &format!("event {number}"))))
        .collect();
    let before = open_ledger(directory.path()).unwrap();
    let raw = before.raw().await.unwrap();
    let month = before.monthly(user(1), period(OCTOBER)).await.unwrap();
    drop(before);
    std::fs::remove_file(directory.path().join("ledger.db")).unwrap();
    let again = open_ledger(directory.path()).unwrap();
    let known = again.known(&ids).await.unwrap();
    assert!(known.found.iter().all(Option::is_none), "the index of ids belongs to the old one");
    log.skip(0);
    log.count(&again).await.unwrap();
    assert_eq!(again.raw().await.unwrap(), raw);
    assert_eq!(again.monthly(user(1), period(OCTOBER)).await.unwrap(), month);
}

#[tokio::test]
async fn a_damaged_index_of_ids_is_made_anew() {
    for damage in [100, PAGE + 9] {
        let (directory, log) = used().await;
        let index = directory.path().join("ids.db");
        open_for_writing(&index).write_all_at(&[0x55; 8000], damage - 100).unwrap();
        let ledger = open_ledger(directory.path()).unwrap();
        let ids: Vec<_> = (0..EVENTS)
            .map(|number| key(&usage(user((number % 200) as u8), &format!("event {number}"))))
            .collect();
        // Damage deep inside shows at a look-up, which then has no answer until it is mended.
        let deadline = Instant::now() + Duration::from_secs(20);
        let known = loop {
            match ledger.known(&ids).await {
                Ok(known) => break known,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(known.cursor, log.end());
        let found =
            known.found.iter().zip(0..).all(|(event, offset)| {
                event.is_some_and(|event| event.offset == Offset::new(offset))
            });
        assert!(found, "an id that was counted is not known");
    }
}

/// Wherever a page is overwritten: refused at once, or answers and errors later, never a panic.
#[tokio::test]
async fn damage_anywhere_is_an_error_and_never_a_panic() {
    let (original, log) = used().await;
    for file in ["log.db", "ledger.db", "accounts.db"] {
        let count = pages(&original.path().join(file));
        let places: Vec<u64> = if count < 40 {
            (1..count).collect()
        } else {
            (1..20).chain((20..count).step_by(usize::try_from(count / 20).unwrap())).collect()
        };
        for (place, fill) in places.into_iter().flat_map(|place| [(place, 0), (place, 0xa5)]) {
            let directory = tempfile::tempdir().unwrap();
            let from = original.path().join(file);
            std::fs::copy(&from, directory.path().join(file)).unwrap();
            let damaged = open_for_writing(&directory.path().join(file));
            damaged.write_all_at(&[fill; 4096], place * PAGE).unwrap();
            use_all(directory.path(), file, &log).await;
        }
    }
}

/// Everything that touches the pages of a file; what it answers is of no interest.
async fn use_all(directory: &Path, file: &str, counted: &Log) {
    match file {
        "log.db" => {
            let Ok(log) = open_log(directory) else { return };
            let mut from = Offset::default();
            while let Ok(records) = log.read(Partition::SINGLE, from, 100, Duration::ZERO).await
                && let Some(last) = records.last()
            {
                from = last.offset.plus(1);
            }
            drop(log.append(vec![event("after", now())], None).await);
            drop(log.trim(Partition::SINGLE, Offset::new(EVENTS), now()).await);
        }
        "ledger.db" => {
            let Ok(ledger) = open_ledger(directory) else { return };
            drop(ledger.take_over(PARTITION).await);
            for number in [0, 1, 150, 199] {
                drop(ledger.monthly(user(number), period(OCTOBER)).await);
            }
            drop((ledger.raw().await, ledger.partitions().await));
            drop((ledger.summaries().await, ledger.statistics().await));
            let after = usage(user(3), "after");
            if ledger.known(&[key(&after)]).await.is_ok() {
                let mut more = counted.clone();
                more.append(after);
                drop(ledger.commit(more.flush(&ledger).await).await);
            }
        }
        _ => {
            let Ok(accounts) = open_accounts(directory) else { return };
            drop(accounts.find_external(&["subject 7".to_owned()]).await);
            drop(accounts.list(&UserQuery { search: None, after: None, rows_max: 1000 }).await);
            drop(accounts.create(service_subject("after")).await);
        }
    }
}
