//! Metrics of counting and of the books.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Help texts and units of this crate's metrics.
pub fn describe() {
    describe_gauge!(
        "tokenmeter_records_waiting",
        "Records of the event log that are not counted yet"
    );
    describe_gauge!(
        "tokenmeter_oldest_waiting_seconds",
        Unit::Seconds,
        "Age of the oldest record that is not counted yet; 0 when none waits"
    );
    describe_histogram!("tokenmeter_flush_records", "Records counted by one commit of the ledger");
    describe_histogram!(
        "tokenmeter_flush_seconds",
        Unit::Seconds,
        "Time that one flush took: look-up, fold and commit"
    );
    describe_counter!(
        "tokenmeter_events_total",
        "Records of the event log by what became of them: counted, duplicate, dead_letter, \
         void (taken too late, never acknowledged)"
    );
    describe_counter!(
        "tokenmeter_partitions_lost_total",
        "Commits that came too late: another process had counted the partition further"
    );
    describe_counter!(
        "tokenmeter_counter_rebuilds_total",
        "Times that a quota counter was lost and its partition had to be opened anew"
    );
    describe_counter!(
        "tokenmeter_alerts_raised_total",
        "Alerts that commits of the ledger have raised"
    );
    describe_counter!(
        "tokenmeter_alert_deliveries_total",
        "Attempts to send an alert by what came of them: sent, failed (tried again), muted (its user \
         wants none), given_up"
    );
    describe_gauge!(
        "tokenmeter_alerts_waiting",
        "Alerts that are not sent yet, of all processes together"
    );
    describe_gauge!(
        "tokenmeter_oldest_alert_waiting_seconds",
        Unit::Seconds,
        "Age of the oldest alert that is not sent yet; 0 when none waits"
    );
    describe_gauge!(
        "tokenmeter_book_difference",
        "Differences found in each book (R1 to R5); anything but 0 is a defect"
    );
}
