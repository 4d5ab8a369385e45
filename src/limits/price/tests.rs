use super::*;
use crate::json::Integers;

/// Of claude-sonnet-4-5 in the year 2026, and of a model that costs a dollar for everything.
const PRICES: &str = r#"{
    "sonnet*": {"input_usd_per_mtok": "3", "cached_input_usd_per_mtok": "0.30", "cache_write_usd_per_mtok": "3.75",
                "cache_write_1h_usd_per_mtok": "6", "output_usd_per_mtok": "15", "reasoning_usd_per_mtok": "15",
                "above": [{"input_tokens": 200000, "input_usd_per_mtok": "6", "cached_input_usd_per_mtok": "0.60",
                           "cache_write_usd_per_mtok": "7.50", "output_usd_per_mtok": "22.50"}],
                "service_tiers": {"priority": "2", "batch": "0.5"}, "reserve_tokens": 8000},
    "dollar": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1", "request_usd": "0.01"},
    "free": {"input_usd_per_mtok": "0", "output_usd_per_mtok": "0.000001"}}"#;

#[track_caller]
fn read(text: &str) -> Prices {
    try_read(text).unwrap()
}

fn try_read(text: &str) -> Result<Prices, Invalid> {
    Prices::read(&Json::parse(text.as_bytes()).unwrap().root(Integers::Whole))
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn usage(input: u64, output: u64) -> TokenUsage {
    TokenUsage { input, output, total: input + output, ..TokenUsage::default() }
}

/// The cost of a response of sonnet.
fn of_sonnet(usage: &TokenUsage, service_tier: Option<&str>) -> u64 {
    let served = Served { usage, model: Some("sonnet-4"), service_tier, extra: &[] };
    read(PRICES).cost(&served, &[]).unwrap()
}

#[test]
fn each_kind_of_tokens_has_its_rate() {
    let million = 1_000_000;
    let all = TokenUsage {
        input: 4 * million,
        cached_input: million,
        cache_write: 2 * million,
        cache_write_1h: million,
        output: 2 * million,
        reasoning: million,
        total: 6 * million,
    };
    let short = read(&PRICES.replace("200000", "4000000"));
    let served = |usage| Served { usage, model: Some("sonnet"), service_tier: None, extra: &[] };
    // 3 + 0.30 + 3.75 + 6 + 15 + 15
    assert_eq!(short.cost(&served(&all), &[]), Some(43_050_000));
    // 6 + 0.60 + 7.50 + 7.50 + 22.50 + 22.50
    assert_eq!(of_sonnet(&all, None), 66_600_000);
}

#[test]
fn a_step_starts_above_its_tokens() {
    assert_eq!(of_sonnet(&usage(200_000, 0), None), 600_000);
    assert_eq!(of_sonnet(&usage(200_001, 0), None), 1_200_006);
}

/// Tokens of another model.
fn of_model(model: Option<Box<str>>, usage: TokenUsage) -> ModelUsage {
    let mut of_model = ModelUsage::new(model);
    of_model.usage = usage;
    of_model
}

#[test]
fn a_cost_is_rounded_up_once() {
    let prices = read(PRICES);
    let cost = |usage: &TokenUsage, extra: &[ModelUsage]| {
        let served = Served { usage, model: Some("free"), service_tier: None, extra };
        prices.cost(&served, &[]).unwrap()
    };
    let [none, one] = [usage(9, 0), usage(0, 1)];
    assert_eq!((cost(&none, &[]), cost(&one, &[])), (0, 1));
    assert_eq!(cost(&usage(0, 1_000_000), &[]), 1);
    assert_eq!(cost(&usage(0, 1_000_001), &[]), 2);
    let half = usage(0, 500_000);
    assert_eq!(cost(&half, &[of_model(None, half)]), 1);
}

#[test]
fn a_service_tier_has_a_factor() {
    let all = usage(1_000, 1_000);
    for (tier, cost) in [
        (None, 18_000),
        (Some("standard"), 18_000),
        (Some("priority"), 36_000),
        (Some("batch"), 9_000),
    ] {
        assert_eq!(of_sonnet(&all, tier), cost, "{tier:?}");
    }
}

/// Nothing that a response reports makes its tokens cheaper than the cheapest of their kind, and a total that is larger
/// than its parts costs as the dearest of them.
#[test]
fn counts_that_contradict_each_other_cost_more() {
    let million = 1_000_000;
    let more_cached = TokenUsage { cached_input: 2 * million, ..usage(million, 0) };
    assert_eq!(of_sonnet(&TokenUsage { input: 0, ..more_cached }, None), 600_000 + 15_000_000);
    let reasoning = TokenUsage { reasoning: million, ..TokenUsage::default() };
    assert_eq!(of_sonnet(&reasoning, None), 15_000_000);
    let total = TokenUsage { total: million, ..TokenUsage::default() };
    assert_eq!(of_sonnet(&total, None), 15_000_000);
    let written = TokenUsage { cache_write_1h: million, ..TokenUsage::default() };
    assert_eq!(of_sonnet(&written, None), 6_000_000);
    let most = u64::MAX;
    let huge = TokenUsage { input: most, output: most, total: most, ..TokenUsage::default() };
    assert_eq!(of_sonnet(&huge, Some("priority")), u64::MAX);
}

#[test]
fn what_is_absent_costs_as_much_as_what_is_dearer() {
    let price = |members: &str| {
        let text = format!(
            r#"{{"m": {{"input_usd_per_mtok": "2", "output_usd_per_mtok": "8"{members}}}}}"#
        );
        read(&text).of("m").unwrap().clone()
    };
    let rates = |input, cached_input, cache_write, cache_write_1h, output, reasoning| {
        let [input, cached_input, cache_write, cache_write_1h, output, reasoning] =
            [input, cached_input, cache_write, cache_write_1h, output, reasoning]
                .map(|usd: u64| usd * MICROS);
        Rates { input, cached_input, cache_write, cache_write_1h, output, reasoning }
    };
    assert_eq!(price("").rates, rates(2, 2, 2, 2, 8, 8));
    let written = price(r#", "cache_write_usd_per_mtok": "3", "reasoning_usd_per_mtok": "9""#);
    assert_eq!(written.rates, rates(2, 2, 3, 3, 8, 9));
    // In a step, never less than before it.
    let steps = price(
        r#", "cached_input_usd_per_mtok": "1", "cache_write_1h_usd_per_mtok": "7",
        "above": [{"input_tokens": 1}, {"input_tokens": 2, "input_usd_per_mtok": "4", "output_usd_per_mtok": "6"},
                  {"input_tokens": 3, "cached_input_usd_per_mtok": "1"}]"#,
    );
    let of_step = |index: usize| steps.above[index].rates.clone();
    assert_eq!(steps.rates, rates(2, 1, 2, 7, 8, 8));
    assert_eq!(of_step(0), rates(2, 2, 2, 7, 8, 8));
    assert_eq!(of_step(1), rates(4, 4, 4, 7, 6, 8));
    assert_eq!(of_step(2), rates(4, 1, 4, 7, 6, 8));
}

#[test]
fn a_reservation_is_made_at_the_highest_rates() {
    let prices = read(PRICES);
    let reserve =
        |models: &[&str], input, output| prices.reservation(&names(models), input, output);
    // Six dollars for input, and twice the sum for the dearest tier.
    assert_eq!(reserve(&["sonnet-4"], 1_000, 0), Some(12_000));
    assert_eq!(reserve(&["sonnet-4"], 0, 1_000), Some(30_000));
    // As an estimate, 50001 may be more than 200000.
    assert_eq!(reserve(&["sonnet-4"], 50_000, 1_000), Some(630_000));
    assert_eq!(reserve(&["sonnet-4"], 50_001, 1_000), Some(795_015));
    assert_eq!(reserve(&["dollar"], 1, 1), Some(10_002));
    assert_eq!(reserve(&["dollar", "sonnet-4", "free"], 1_000, 1_000), Some(42_000));
    assert_eq!(reserve(&["dollar", "sonnet-4"], 1, 1), Some(10_002));
    assert_eq!(reserve(&["dollar", "unknown"], 1, 1), None);
    assert_eq!(reserve(&[], 1, 1), None);
    assert_eq!(reserve(&["sonnet"], u64::MAX, u64::MAX), Some(u64::MAX));
}

#[test]
fn tokens_to_reserve_are_the_most_of_the_models() {
    let prices = read(PRICES);
    let reserve = |models: &[&str], default| prices.reserve_tokens(&names(models), default);
    assert_eq!((reserve(&[], 7), reserve(&["unknown"], 7), reserve(&["dollar"], 7)), (7, 7, 7));
    assert_eq!(reserve(&["sonnet"], 9_000), 8_000);
    assert_eq!(reserve(&["sonnet", "dollar"], 9_000), 9_000);
}

#[test]
fn a_model_without_a_price_costs_what_the_dearest_that_was_asked_for_costs() {
    let prices = read(PRICES);
    let cost = |model, asked: &[&str], extra: &[ModelUsage]| {
        let usage = usage(1_000, 1_000);
        let served = Served { usage: &usage, model, service_tier: None, extra };
        prices.cost(&served, &names(asked))
    };
    assert_eq!(cost(Some("sonnet-4"), &["dollar"], &[]), Some(18_000));
    assert_eq!(cost(None, &["dollar", "sonnet-4"], &[]), Some(18_000));
    assert_eq!(cost(Some("sonett"), &["free", "dollar"], &[]), Some(12_000));
    assert_eq!(cost(Some("sonett"), &["other"], &[]), None);
    // Other models are not further requests.
    let extra = |model: &str| {
        let model = Some(model).filter(|model| !model.is_empty()).map(Into::into);
        [of_model(model, usage(1_000, 0))]
    };
    assert_eq!(cost(Some("dollar"), &[], &extra("sonnet")), Some(12_000 + 3_000));
    assert_eq!(cost(Some("dollar"), &["sonnet", "free"], &extra("advisor")), Some(12_000 + 3_000));
    assert_eq!(cost(Some("dollar"), &[], &extra("dollar")), Some(12_000 + 1_000));
    assert_eq!(cost(Some("dollar"), &[], &extra("advisor")), None);
    // One without a name is of the model that served.
    assert_eq!(cost(Some("dollar"), &["sonnet"], &extra("")), Some(12_000 + 1_000));
    assert_eq!(cost(None, &["sonnet", "dollar"], &extra("")), Some(18_000 + 3_000));
}

#[test]
fn the_first_price_of_a_model_is_in_force() {
    let one = |usd: u32| format!(r#""input_usd_per_mtok": "{usd}", "output_usd_per_mtok": "0""#);
    let object = format!(
        r#"{{"gpt-4o-mini*": {{{}}}, "gpt-4o*": {{{}}}, "*": {{{}}}}}"#,
        one(1),
        one(2),
        one(3)
    );
    let list = format!(
        r#"[{{"models": ["gpt-4o-mini*"], {}}}, {{"models": ["o4", "gpt-4o*"], {}}}, {{"models": ["*"], {}}}]"#,
        one(1),
        one(2),
        one(3)
    );
    for prices in [read(&object), read(&list)] {
        let price = |model: &str| prices.of(model).unwrap().rates.input / MICROS;
        let models = ["gpt-4o-mini", "gpt-4o-mini-2", "gpt-4o", "gpt-5"];
        assert_eq!(models.map(price), [1, 1, 2, 3]);
    }
    assert_eq!(read(&list).of("o4").unwrap().rates.input / MICROS, 2);
}

#[test]
fn a_price_that_is_never_used_is_an_error() {
    let one = r#""input_usd_per_mtok": "1", "output_usd_per_mtok": "1""#;
    for (first, second) in
        [("*", "a"), ("a*", "a*b"), ("a*", "ab*"), ("*a*", "**a"), ("a*b*", "ab*b")]
    {
        let error = try_read(&format!(r#"{{"{first}": {{{one}}}, "{second}": {{{one}}}}}"#));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{second}: never used")), "{error}");
    }
    for (first, second) in [("a", "*"), ("a*b", "a*"), ("ab*", "a*"), ("*a", "*a*"), ("a*", "b*")] {
        read(&format!(r#"{{"{first}": {{{one}}}, "{second}": {{{one}}}}}"#));
    }
    read(&format!(r#"[{{"models": ["a*"], {one}}}, {{"models": ["ab", "b"], {one}}}]"#));
    let error = try_read(&format!(
        r#"[{{"models": ["a*"], {one}}}, {{"models": ["b"], {one}}}, {{"models": ["ab", "b"], {one}}}]"#
    ));
    assert!(error.unwrap_err().to_string().starts_with("[2]: never used"));
}

#[test]
fn there_are_at_most_a_thousand_prices() {
    let one = r#"{"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}"#;
    let many = |count: usize| {
        let prices = (0..count).map(|number| format!(r#""m{number}-*": {one}"#));
        try_read(&format!("{{{}}}", Vec::from_iter(prices).join(",")))
            .map(|prices| prices.list.len())
    };
    assert_eq!(many(MAX_PRICES).unwrap(), MAX_PRICES);
    let error = many(MAX_PRICES + 1).unwrap_err().to_string();
    assert_eq!(
        error,
        "m1000-*: there are 1000 prices before it; use globs for models of one price"
    );
}

#[cfg(not(target_arch = "wasm32"))]
proptest::proptest! {
    /// Whichever model of those that were asked for served, and whatever the tokens were.
    #[test]
    fn no_token_costs_more_than_was_reserved_for_it(
        input in 0..1_000_000_u64,
        parts in proptest::array::uniform4(0..100_u64),
        output in 0..100_000_u64,
        served in proptest::sample::select(vec![Some("sonnet-4"), Some("dollar"), Some("other"), None]),
        service_tier in proptest::sample::select(vec![None, Some("priority"), Some("batch"), Some("x")]),
    ) {
        let share = |part: u64| input / 100 * (part / 2);
        let [cached, written, for_an_hour, reasoning] = parts;
        let usage = TokenUsage {
            cached_input: share(cached),
            cache_write: share(written),
            cache_write_1h: share(written) / 100 * for_an_hour,
            reasoning: output / 100 * reasoning,
            ..usage(input, output)
        };
        let prices = read(PRICES);
        let asked = names(&["dollar", "sonnet-4"]);
        let cost = prices.cost(&Served { usage: &usage, model: served, service_tier, extra: &[] }, &asked);
        proptest::prop_assert!(cost.unwrap() <= prices.reservation(&asked, input, output).unwrap());
    }
}
