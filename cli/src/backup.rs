//! `tokenmeter backup`: one archive of all data, also while the server runs.
//!
//! The files are copied one after another, each as it stands at one instant. The ledger goes first
//! and the log after it, so the log holds every record that the ledger has not counted yet; accounts
//! go last, so every user of the log is among them. A server that starts on the copies counts the
//! rest of the log, as it does after a crash.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use stores::sqlite::copy_online;

use crate::commands::BackupArgs;
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, LEDGER, LOG};
use crate::output::{Outcome, say, say_json};

pub(crate) fn run(context: &Context, args: &BackupArgs) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        context.settings.cluster.is_none(),
        "this backs up a single node; a cluster's databases have tools of their own"
    );
    let directory = context.directory()?;
    anyhow::ensure!(!args.file.exists(), "{} exists: it is not overwritten", args.file.display());
    let copies = Scratch::beside(&args.file)?;
    let mut archive = tar::Builder::new(copies.create_file("archive.tar")?);
    for name in [LEDGER, LOG, ACCOUNTS] {
        let copy = copies.path.join(name);
        copy_online(&directory.file(name), &copy)?;
        keep_private(&copy)?;
        archive.append_path_with_name(&copy, name).with_context(|| format!("adding {name}"))?;
        std::fs::remove_file(&copy)?;
    }
    let mut written = archive.into_inner().context("the archive cannot be finished")?;
    written.flush()?;
    written.sync_all().context("the archive cannot be made durable")?;
    let bytes = written.metadata()?.len();
    std::fs::rename(copies.path.join("archive.tar"), &args.file)
        .with_context(|| format!("{} cannot be written", args.file.display()))?;
    if args.output.json {
        say_json(&json!({"file": args.file, "bytes": bytes}))?;
    } else {
        let file = args.file.display();
        say(format!("{file}: {bytes} bytes, everything acknowledged until now."));
        say(format!("To restore: mkdir DIR && tar -xf {file} -C DIR && tokenmeter --data-dir DIR"));
    }
    Ok(Outcome::Success)
}

/// Who unpacks the archive gets files that only they may read.
fn keep_private(file: &Path) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(file, mode)?;
    }
    Ok(())
}

/// A directory beside the archive, on the same disk; only its owner may enter.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn beside(file: &Path) -> anyhow::Result<Self> {
        let mut name = file.file_name().context("FILE must name a file")?.to_owned();
        name.push(".part");
        let path = file.with_file_name(name);
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.create(&path);
        made.with_context(|| {
            let path = path.display();
            format!("{path} cannot be made (when an earlier backup was cut off, remove it)")
        })?;
        Ok(Self { path })
    }

    /// The archive holds credentials' hashes: only its owner may read it.
    fn create_file(&self, name: &str) -> anyhow::Result<File> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.path.join(name)).context("the archive cannot be made")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}
