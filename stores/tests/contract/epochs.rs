//! The rules of the port `Epochs`.

use std::collections::BTreeMap;

use metering::quota::{Epoch, Epochs};
use metering::usage::Partition;

macro_rules! epochs_contract {
    ($make:expr) => {
        rules!(
            epochs,
            epochs_rules,
            $make,
            [
                nothing_is_announced_at_first,
                each_partition_has_the_name_last_announced,
                a_nonce_has_all_its_bits,
                only_the_first_name_of_a_partition_is_told_to_be_it,
                what_is_announced_at_once_ends_with_one_of_them,
            ]
        );
    };
}

fn named(incarnation: &str, nonce: u64) -> Epoch {
    Epoch { incarnation: incarnation.to_owned(), nonce }
}

pub(crate) async fn nothing_is_announced_at_first(store: &impl Epochs) {
    assert_eq!(store.announced().await.unwrap(), BTreeMap::new());
}

pub(crate) async fn each_partition_has_the_name_last_announced(store: &impl Epochs) {
    let (one, other) = (Partition::new(0), Partition::new(63));
    store.announce(one, &named("a", 1)).await.unwrap();
    store.announce(other, &named("a", 2)).await.unwrap();
    store.announce(one, &named("b", 3)).await.unwrap();
    let expected = BTreeMap::from([(one, named("b", 3)), (other, named("a", 2))]);
    assert_eq!(store.announced().await.unwrap(), expected);
}

pub(crate) async fn a_nonce_has_all_its_bits(store: &impl Epochs) {
    for nonce in [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
        store.announce(Partition::new(7), &named("a", nonce)).await.unwrap();
        assert_eq!(store.announced().await.unwrap()[&Partition::new(7)].nonce, nonce);
    }
}

pub(crate) async fn only_the_first_name_of_a_partition_is_told_to_be_it(store: &impl Epochs) {
    let (one, other) = (Partition::new(11), Partition::new(12));
    assert!(store.announce(one, &named("a", 1)).await.unwrap());
    assert!(!store.announce(one, &named("a", 1)).await.unwrap());
    assert!(!store.announce(one, &named("b", 2)).await.unwrap());
    assert!(store.announce(other, &named("b", 3)).await.unwrap());
}

pub(crate) async fn what_is_announced_at_once_ends_with_one_of_them(store: &impl Epochs) {
    let (one, other) = (named("a", 1), named("b", 2));
    let partition = Partition::new(3);
    let both = tokio::join!(store.announce(partition, &one), store.announce(partition, &other));
    assert_ne!(both.0.unwrap(), both.1.unwrap(), "one of them is the first");
    let announced = store.announced().await.unwrap();
    assert!(announced[&partition] == one || announced[&partition] == other, "{announced:?}");
}
