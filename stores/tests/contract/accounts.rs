//! The rules of the port `Accounts`.

use metering::accounts::{
    Accounts, CreateError, Email, NewUser, PasswordHash, Role, UserId, UserQuery,
};
use metering::quota::PlanName;
use metering::time::Timestamp;

macro_rules! accounts_contract {
    ($make:expr) => {
        rules!(
            accounts,
            accounts_rules,
            $make,
            [
                a_user_is_found_as_made,
                nobody_is_found_under_an_id_never_given,
                an_address_is_taken_once_whatever_its_case,
                of_two_that_take_an_address_at_once_one_is_refused,
                an_external_id_names_the_user_who_has_it,
                a_service_that_repeats_itself_gets_its_user,
                a_login_is_found_by_its_address_in_any_case,
                external_ids_are_answered_in_the_order_asked,
                a_list_is_in_order_and_goes_on_after_the_last,
                a_search_looks_into_name_address_and_external_id,
                role_and_lock_change_and_the_rest_stays,
                an_erased_user_is_found_no_more,
                what_an_erased_user_had_may_be_taken_again,
            ]
        );
    };
}

/// The present of these rules.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

/// A user with address and password.
pub(crate) fn ada() -> NewUser {
    NewUser {
        id: UserId::generate(now()),
        name: Some("Ada Lovelace".into()),
        email: Some(Email::new("Ada@Example.com").unwrap()),
        external_id: None,
        role: Role::User,
        password: Some(PasswordHash("$argon2id$ada".into())),
        plan: PlanName::new("free"),
        payment_method_id: None,
        now: now(),
    }
}

/// A user that a service names.
pub(crate) fn service_subject(external_id: &str) -> NewUser {
    let id = UserId::generate(now());
    let external_id = Some(external_id.to_owned());
    NewUser { id, name: None, email: None, external_id, password: None, ..ada() }
}

fn with_email(email: &str) -> NewUser {
    NewUser { id: UserId::generate(now()), email: Some(Email::new(email).unwrap()), ..ada() }
}

pub(crate) async fn a_user_is_found_as_made(store: &impl Accounts) {
    let made = store.create(ada()).await.unwrap();
    assert_eq!(made.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(made.email.as_ref().map(Email::as_str), Some("Ada@Example.com"));
    assert_eq!((made.role, made.locked, made.created_at), (Role::User, false, now()));
    assert_eq!(store.find(made.id).await.unwrap(), Some(made));
}

pub(crate) async fn nobody_is_found_under_an_id_never_given(store: &impl Accounts) {
    let nobody = UserId::generate(now());
    let email = Email::new("nobody@example.com").unwrap();
    assert_eq!(store.find(nobody).await.unwrap(), None);
    assert!(store.find_login(&email).await.unwrap().is_none());
    assert_eq!(store.update(nobody, None, Some(true), now()).await.unwrap(), None);
    assert!(!store.erase(nobody, now()).await.unwrap());
}

pub(crate) async fn an_address_is_taken_once_whatever_its_case(store: &impl Accounts) {
    store.create(ada()).await.unwrap();
    let second = with_email("aDA@eXAMPLE.com");
    let id = second.id;
    assert!(matches!(store.create(second).await, Err(CreateError::EmailTaken)));
    assert_eq!(store.find(id).await.unwrap(), None);
}

pub(crate) async fn of_two_that_take_an_address_at_once_one_is_refused(store: &impl Accounts) {
    let (one, other) = tokio::join!(store.create(ada()), store.create(ada()));
    assert_eq!([one.is_ok(), other.is_ok()].into_iter().filter(|made| *made).count(), 1);
    let refused = one.err().or(other.err()).unwrap();
    assert!(matches!(refused, CreateError::EmailTaken));
}

pub(crate) async fn an_external_id_names_the_user_who_has_it(store: &impl Accounts) {
    let first = store.create(service_subject("customer-1")).await.unwrap();
    let Err(CreateError::ExternalIdTaken(found)) =
        store.create(service_subject("customer-1")).await
    else {
        panic!("made twice");
    };
    assert_eq!(*found, first);
    // Unlike addresses, external ids are another system's and differ by case.
    assert!(store.create(service_subject("CUSTOMER-1")).await.is_ok());
}

pub(crate) async fn a_service_that_repeats_itself_gets_its_user(store: &impl Accounts) {
    let both = || NewUser { external_id: Some("both".into()), ..with_email("both@example.com") };
    let first = store.create(both()).await.unwrap();
    let Err(CreateError::ExternalIdTaken(found)) = store.create(both()).await else {
        panic!("the address was told first");
    };
    assert_eq!(found.id, first.id);
}

pub(crate) async fn a_login_is_found_by_its_address_in_any_case(store: &impl Accounts) {
    let made = store.create(ada()).await.unwrap();
    let address = Email::new("ADA@example.COM").unwrap();
    let (found, password) = store.find_login(&address).await.unwrap().unwrap();
    assert_eq!(found, made);
    assert_eq!(password, Some(PasswordHash("$argon2id$ada".into())));
    store.create(NewUser { password: None, ..with_email("bob@example.com") }).await.unwrap();
    let address = Email::new("bob@example.com").unwrap();
    assert_eq!(store.find_login(&address).await.unwrap().unwrap().1, None);
}

pub(crate) async fn external_ids_are_answered_in_the_order_asked(store: &impl Accounts) {
    let one = store.create(service_subject("one")).await.unwrap().id;
    let two = store.create(service_subject("two")).await.unwrap().id;
    let asked = ["two", "none", "one", "two"].map(String::from);
    let found = store.find_external(&asked).await.unwrap();
    assert_eq!(found, [Some(two), None, Some(one), Some(two)]);
}

pub(crate) async fn a_list_is_in_order_and_goes_on_after_the_last(store: &impl Accounts) {
    let mut made = vec![];
    for number in 0..5 {
        made.push(store.create(service_subject(&format!("s-{number}"))).await.unwrap());
    }
    made.sort_by_key(|user| user.id);
    let first = UserQuery { rows_max: 3, ..UserQuery::default() };
    let page = store.list(&first).await.unwrap();
    assert_eq!((page.users.as_slice(), page.has_more), (&made[..3], true));
    let rest = UserQuery { after: Some(made[2].id), ..first };
    let page = store.list(&rest).await.unwrap();
    assert_eq!((page.users.as_slice(), page.has_more), (&made[3..], false));
}

pub(crate) async fn a_search_looks_into_name_address_and_external_id(store: &impl Accounts) {
    let user = NewUser { external_id: Some("Crm/77".into()), ..with_email("Ärger@example.com") };
    let made = store.create(user).await.unwrap();
    store.create(service_subject("somebody else")).await.unwrap();
    for (text, found) in
        [("LOVELACE", true), ("ärGER@", true), ("crm/7", true), ("%", false), ("crm/8", false)]
    {
        let query = UserQuery { search: Some(text.into()), after: None, rows_max: 10 };
        let users = store.list(&query).await.unwrap().users;
        assert_eq!(
            users.iter().map(|user| user.id).collect::<Vec<_>>(),
            if found { vec![made.id] } else { vec![] }
        );
    }
}

pub(crate) async fn role_and_lock_change_and_the_rest_stays(store: &impl Accounts) {
    let made = store.create(ada()).await.unwrap();
    let later = Timestamp::from_millis(now().as_millis() + 5);
    let admin = store.update(made.id, Some(Role::Admin), None, later).await.unwrap().unwrap();
    assert_eq!((admin.role, admin.locked, admin.updated_at), (Role::Admin, false, later));
    let locked = store.update(made.id, None, Some(true), later).await.unwrap().unwrap();
    assert_eq!((locked.role, locked.locked), (Role::Admin, true));
    assert_eq!(store.find(made.id).await.unwrap(), Some(locked.clone()));
    assert_eq!((locked.name, locked.email), (made.name, made.email));
}

pub(crate) async fn an_erased_user_is_found_no_more(store: &impl Accounts) {
    let user = NewUser { external_id: Some("gone".into()), ..ada() };
    let made = store.create(user).await.unwrap();
    assert!(store.erase(made.id, now()).await.unwrap());
    assert_eq!(store.find(made.id).await.unwrap(), None);
    assert!(store.find_login(&made.email.unwrap()).await.unwrap().is_none());
    assert_eq!(store.find_external(&["gone".into()]).await.unwrap(), [None]);
    let everybody = UserQuery { rows_max: 10, ..UserQuery::default() };
    assert!(store.list(&everybody).await.unwrap().users.is_empty());
    assert_eq!(store.update(made.id, None, Some(false), now()).await.unwrap(), None);
    assert!(!store.erase(made.id, now()).await.unwrap());
}

pub(crate) async fn what_an_erased_user_had_may_be_taken_again(store: &impl Accounts) {
    let user = || NewUser { external_id: Some("again".into()), ..with_email("again@example.com") };
    let first = store.create(user()).await.unwrap();
    store.erase(first.id, now()).await.unwrap();
    let second = store.create(user()).await.unwrap();
    assert_ne!(first.id, second.id);
    let taken = NewUser { id: first.id, ..with_email("other@example.com") };
    assert!(matches!(store.create(taken).await, Err(CreateError::Unavailable(_))));
}
