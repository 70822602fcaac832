use super::*;
use crate::usage::RequestType;

fn models() -> ModelCatalogue {
    ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap()
}

fn plans() -> PlanCatalogue {
    PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models()).unwrap()
}

fn upgrade(current: &str, tier: u8, used: Totals, asked: Totals) -> Option<String> {
    let found = plans().upgrade_from(&PlanName::new(current), Tier(tier), &used, &asked).cloned();
    found.map(|plan| plan.name.as_str().to_owned())
}

#[test]
fn the_embedded_plans_are_those_of_the_contract() {
    let plans = plans();
    let row = |name: &str| {
        let plan = plans.get(name).unwrap();
        (plan.token_limit, plan.request_limits, models().name_of(plan.tier).to_owned())
    };
    let limits = [Some(100), Some(5), Some(10)];
    assert_eq!(row("free"), (Some(100_000), limits, "gpt-3.5-turbo".into()));
    let limits = [Some(500), Some(20), Some(50)];
    assert_eq!(row("basic"), (Some(500_000), limits, "gpt-4".into()));
    assert_eq!(row("professional"), (None, [None; 3], "gpt-4-turbo".into()));
    assert_eq!(
        plans.all().iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>(),
        ["free", "basic", "professional"]
    );
    assert_eq!(plans.free().name.as_str(), "free");
    assert!(plans.get("enterprise").is_none());
    assert!(plans.all().iter().all(|plan| plan.alert_at == [80, 95, 100]));
}

#[test]
fn alerts_are_asked_for_at_ascending_percentages() {
    let with = |alert_at: &str| {
        let plan = "name = \"free\", free = true, max_model_tier = \"gpt-4\"";
        let text = format!("plan = [{{ {plan}, alert_at = {alert_at} }}]");
        PlanCatalogue::from_toml(&text, &models())
    };
    for good in ["[]", "[1]", "[50, 100, 1000]"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in ["[0]", "[1001]", "[90, 80]", "[80, 80]", "[-1]", "[70000]", "80", "[79.5]"] {
        let said = with(bad).unwrap_err().to_string();
        assert!(said.contains("alert_at"), "{bad}: {said}");
    }
}

#[test]
fn a_model_has_the_tier_of_its_name_or_else_of_its_longest_prefix() {
    let models = models();
    let tier_of = |model| models.tier_of(model).map(|tier| models.name_of(tier).to_owned());
    for (model, tier) in [
        ("gpt-3.5-turbo", "gpt-3.5-turbo"),
        ("gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("gpt-4o-mini", "gpt-3.5-turbo"),
        ("gpt-4o-mini-2024-07-18", "gpt-3.5-turbo"),
        ("gpt-4", "gpt-4"),
        ("gpt-4o", "gpt-4"),
        ("gpt-4o-2024-08-06", "gpt-4"),
        ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("gpt-4-0125-preview", "gpt-4-turbo"),
        ("gpt-4-0613", "gpt-4"),
    ] {
        assert_eq!(tier_of(model).as_deref(), Some(tier), "{model}");
    }
    for model in ["", "gpt", "gpt-4x", "GPT-4", "my-own-model"] {
        assert_eq!(tier_of(model), None, "{model}");
    }
}

#[test]
fn unknown_models_may_be_given_a_tier() {
    let known = models().with_unknown_in("gpt-4").unwrap();
    assert_eq!(known.tier_of("my-own-model"), known.tier_named("gpt-4"));
    assert_eq!(known.tier_of("gpt-4o-mini"), Some(Tier(0)));
    assert!(models().with_unknown_in("gpt-9").is_err());
    let file = "unknown_model_tier = \"low\"\n[[tier]]\nname = \"low\"";
    assert_eq!(ModelCatalogue::from_toml(file).unwrap().tier_of("any"), Some(Tier(0)));
}

#[test]
fn a_bad_model_catalogue_says_what_is_wrong() {
    for (text, message) in [
        ("", "missing field"),
        ("tier = []", "must have 1 to 255"),
        ("[[tier]]\nname = \"a\"\nsize = 1", "unknown field"),
        ("[[tier]]\nname = \"a\"\n[[tier]]\nname = \"a\"", "tier \"a\" stands twice"),
        ("[[tier]]\nname = \"a\"\nmodels = [\"m\", \"m\"]", "model \"m\" is empty or stands twice"),
        ("[[tier]]\nname = \"a\"\nprefixes = [\"\"]", "prefix \"\" is empty or stands twice"),
        ("unknown_model_tier = \"b\"\n[[tier]]\nname = \"a\"", "there is no tier \"b\""),
    ] {
        let error = ModelCatalogue::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn a_bad_plan_catalogue_says_what_is_wrong() {
    let free = "[[plan]]\nname = \"free\"\nfree = true\nmax_model_tier = \"gpt-4\"\n";
    for (text, message) in [
        (String::new(), "missing field"),
        ("plan = []".into(), "must have a plan \"free\""),
        (free.replace("free = true\n", ""), "must have a plan \"free\""),
        (free.replace("gpt-4", "gpt-9"), "plan \"free\": there is no model tier \"gpt-9\""),
        (free.repeat(2), "plan \"free\" is empty or stands twice"),
        (format!("{free}tokens = -1"), "tokens"),
        (format!("{free}tokens = 1.5"), "tokens"),
        (format!("{free}token = 1"), "unknown field"),
        (format!("{free}over_limit = \"ignore\""), "over_limit"),
    ] {
        let error = PlanCatalogue::from_toml(&text, &models()).unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
    }
    let recording = format!("{free}over_limit = \"record\"");
    let plans = PlanCatalogue::from_toml(&recording, &models()).unwrap();
    assert_eq!(plans.free().over_limit, OverLimit::Record);
    assert_eq!(plans.free().token_limit, None);
}

#[test]
fn an_upgrade_is_the_cheapest_plan_that_helps() {
    let (none, chat) = (Totals::default(), |tokens| Totals::of(RequestType::Chat, tokens));
    assert_eq!(upgrade("free", 0, none, chat(200_000)).as_deref(), Some("basic"));
    assert_eq!(upgrade("free", 0, chat(400_000), chat(200_000)).as_deref(), Some("professional"));
    assert_eq!(upgrade("free", 1, none, chat(1)).as_deref(), Some("basic"));
    assert_eq!(upgrade("free", 2, none, chat(1)).as_deref(), Some("professional"));
    let many = Totals { tokens: 0, requests: [500, 0, 0] };
    assert_eq!(upgrade("free", 0, many, chat(0)).as_deref(), Some("professional"));
    // Requests of another type do not matter.
    let check = Totals::of(RequestType::Plagiarism, 0);
    assert_eq!(upgrade("free", 0, many, check).as_deref(), Some("basic"));
    assert_eq!(upgrade("professional", 0, none, chat(1)), None);
    assert_eq!(upgrade("unheard-of", 0, none, chat(1)), None);
    let huge = Totals { tokens: u64::MAX, requests: [0; 3] };
    assert_eq!(upgrade("free", 0, huge, chat(1)), None);
}
