//! Which rules hold, and the variants in which some do not.

use super::environment::Environment;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One switch for each rule that carries weight: all true is the protocol.
        #[derive(Clone, Debug)]
        pub(crate) struct Rules {
            /// Where to look; `None`: in all of them, as the seed draws.
            pub(crate) environment: Option<Environment>,
            $($(#[$doc])* pub(crate) $name: bool,)*
        }

        impl Default for Rules {
            fn default() -> Self {
                Self { environment: None, $($name: true,)* }
            }
        }

        impl Rules {
            fn switch_off(&mut self, name: &str) {
                match name {
                    $(stringify!($name) => self.$name = false,)*
                    _ => panic!("there is no rule {name}"),
                }
            }

            /// The name of every rule.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name),)*];
        }
    };
}

rules! {
    /// 4.1 A connection asks which life of which server it has reached.
    connections_learn_the_incarnation,
    /// 4.1 Admissions compare it with that of the epoch.
    incarnations_are_compared,
    /// 4.2 Other content of an id in flight is not published.
    other_content_conflicts,
    /// 4.2 A repeat refreshes the entry's `admitted_at`.
    repeats_refresh,
    /// 4.2 The log's time steps back by no more than the margin.
    log_time_keeps_its_margin,
    /// 4.2 What never arrived is forgotten by the log's time, not by the server's clock.
    forgotten_by_the_watermark,
    /// 4.3 A seed carries a nonce.
    seeds_carry_the_nonce,
    /// 4.3 … that of the answer that missed it.
    seeds_carry_the_nonce_of_the_miss,
    /// 4.3 A seed older than the epoch's cursor is dropped.
    old_seeds_are_dropped,
    /// 4.4 Acknowledged only when the log took the record within the window.
    acknowledged_within_the_window,
    /// 4.5 A record that the log took after its window is void.
    late_records_are_void,
    /// 4.5 … by its own log time.
    void_by_its_own_time,
    /// 4.5 The entry of a void record stays.
    void_leaves_the_entry,
    /// 4.5 A void record is not remembered as counted.
    void_is_not_remembered,
    /// 4.6 Only totals of a later cursor replace others.
    totals_have_a_cursor,
    /// 4.6 A sync makes no user known.
    sync_never_creates,
    /// 4.6 Every call of a sync names the epoch.
    sync_names_the_epoch,
    /// 4.6 Cursor and watermark move when the entries have left.
    cursor_moves_last,
    /// 4.6 A new owner brings the counter from the epoch's cursor to its own.
    take_over_catches_up,
    /// 4.7 The log's end is read after the wait.
    the_end_is_read_after_the_wait,
    /// 4.7 There is a wait at all.
    rebuilds_wait,
    /// 4.7 … that covers the feed's delay.
    rebuilds_wait_for_the_feed,
    /// 4.7 The new name is announced before the wait.
    announced_before_the_wait,
    /// 4.7 Opened when everything up to that end is counted.
    opened_at_the_end,
    /// 4.7 Opened only under the name by which one has closed it.
    opened_by_compare_and_set,
    /// 4.7 An owner whose epoch the feed does not name opens it anew.
    owners_ask_the_feed,
    /// 4.10 The ledger is asked before a refusal.
    looked_up_before_refusal,
    /// 4.12 Admissions are compared with the feed.
    the_feed_is_asked,
    /// 4.12 … by nonce.
    the_feed_is_asked_for_the_nonce,
    /// 4.12 … as it was read lately.
    the_feed_is_fresh,
    /// 5.1 The horizon changes by a record of the log.
    the_horizon_is_in_the_log,
    /// 5.1 The cursor's row holds the horizon.
    the_horizon_is_in_the_row,
    /// 5.1 When the horizon grows, the ledger is read again.
    a_growing_horizon_reads_again,
    /// 5.1 The ledger is asked for stamped ids that may have outlived the memory.
    stamped_ids_are_looked_up,
    /// 5.1 … with the allowance of the door and of the log's time.
    stamps_have_an_allowance,
    /// 5.1 Stamps too far ahead are refused at the door.
    the_door_looks_at_stamps,
    /// 5.1 A look-up sees only what lies below the record.
    looked_up_below_the_offset,
    /// 5.1 Memory reaches at least as far back as the horizon.
    eviction_lags,
    /// 5.2 ClickHouse is written before Postgres.
    clickhouse_comes_first,
    /// 5.2 What was not confirmed is written again.
    inserts_are_confirmed,
    /// 5.2 The cursor moves by compare-and-set.
    cursors_compare_and_set,
    /// 5.2 Only what belongs to partitions that were won is applied.
    only_the_won_is_applied,
    /// 5.2 After a commit in doubt the cursor tells.
    doubt_asks_the_cursor,
    /// 5.2 A task whose ledger stands elsewhere begins anew.
    failed_look_ups_take_over,
    /// 5.2 Of two summary rows the one with the later version stays.
    summaries_have_versions,
    /// 5.3 A summary row skips events below its version.
    summaries_skip_what_they_hold,
    /// 5.3 Remembered at take-over is only what lies below the cursor.
    loaded_below_the_cursor,
}

/// Rules that are left out together, and the environment in which that is looked for.
pub(crate) struct Variant {
    pub(crate) broken: &'static [&'static str],
    pub(crate) rules: Rules,
}

impl Variant {
    pub(crate) fn new(broken: &'static [&'static str], environment: Environment) -> Self {
        let mut rules = Rules { environment: Some(environment), ..Rules::default() };
        broken.iter().for_each(|name| rules.switch_off(name));
        Self { broken, rules }
    }
}

/// Every rule is in one of these, or in a scripted order. What is redundant alone is broken together
/// with what covers it.
#[rustfmt::skip]
pub(crate) fn variants() -> Vec<Variant> {
    use Environment as In;
    let all: [(&'static [&'static str], Environment); _] = [
        (&["connections_learn_the_incarnation"], In::OneServer),
        (&["incarnations_are_compared"], In::OneServer),
        (&["other_content_conflicts"], In::Contents),
        (&["repeats_refresh"], In::Quiet),
        (&["forgotten_by_the_watermark"], In::Quiet),
        (&["seeds_carry_the_nonce", "old_seeds_are_dropped"], In::Rebuilds),
        (&["acknowledged_within_the_window"], In::Quiet),
        (&["late_records_are_void"], In::Quiet),
        (&["void_by_its_own_time"], In::Quiet),
        (&["void_leaves_the_entry"], In::Quiet),
        (&["void_is_not_remembered"], In::Quiet),
        (&["totals_have_a_cursor"], In::Owners),
        (&["cursor_moves_last"], In::Quiet),
        (&["take_over_catches_up"], In::Owners),
        (&["opened_at_the_end"], In::Rebuilds),
        (&["owners_ask_the_feed"], In::Owners),
        (&["looked_up_before_refusal"], In::OneServer),
        (&["the_feed_is_asked"], In::Servers),
        (&["the_horizon_is_in_the_row"], In::Horizons),
        (&["stamped_ids_are_looked_up"], In::Duplicates),
        (&["the_door_looks_at_stamps"], In::Duplicates),
        (&["looked_up_below_the_offset"], In::Duplicates),
        (&["eviction_lags", "a_growing_horizon_reads_again"], In::Duplicates),
        (&["clickhouse_comes_first"], In::Stores),
        (&["inserts_are_confirmed"], In::Stores),
        (&["cursors_compare_and_set"], In::Stores),
        (&["only_the_won_is_applied"], In::Partitions),
        (&["doubt_asks_the_cursor"], In::Stores),
        (&["failed_look_ups_take_over"], In::Stores),
        (&["summaries_have_versions"], In::Stores),
        (&["summaries_skip_what_they_hold"], In::Stores),
        (&["loaded_below_the_cursor"], In::Stores),
    ];
    all.into_iter().map(|(broken, environment)| Variant::new(broken, environment)).collect()
}
