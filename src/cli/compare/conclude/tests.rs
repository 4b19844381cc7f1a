use super::*;
use crate::cli::compare::plan::Plan;
use crate::cli::machine::Machine;

fn load(round: usize, demand: Demand, committed_per_second: f64) -> Load {
    Load { round, demand, committed_per_second, p50_ms: 5.0, p99_ms: 20.0, errors: 0, cost: None }
}

fn wave(after_death_ms: f64, items_stuck: u64, users_stuck: u64) -> Wave {
    let (items_locked, users_locked, in_doubt) = (0, 0, 0);
    Wave {
        after_death_ms,
        is_back: false,
        items_tried: 100,
        items_stuck,
        users_tried: 100,
        users_stuck,
        items_locked,
        users_locked,
        in_doubt,
    }
}

fn crash(stuck_before: u64, stuck: u64, silence_ms: f64) -> Crash {
    Crash {
        round: 0,
        before_per_second: 1_000.0,
        away_per_second: 900.0,
        after_per_second: 1_000.0,
        silence_ms,
        died_at_ms: 2_000.0,
        started_at_ms: 7_000.0,
        slice_ms: 50.0,
        committed_by_slice: Vec::new(),
        waves: vec![wave(-1_000.0, stuck_before, 0), wave(4_000.0, stuck, stuck)],
    }
}

/// A run in which one item sells at these rates, reserving and locking.
fn figures(reserving: &[f64], locking: &[f64]) -> Figures {
    let measured = |configuration, rates: &[f64]| {
        let mut measured = Measured::new(configuration);
        let loads = rates.iter().enumerate().map(|(round, rate)| load(round, Demand::Single, *rate));
        measured.loads.extend(loads);
        measured.verified = Some([0; 4]);
        measured
    };
    Figures {
        command: "kassa compare".to_owned(),
        machine: Machine::default(),
        behind_nginx: true,
        plan: Plan::QUICK,
        took_seconds: 200.0,
        configurations: vec![
            measured(Configuration::Default, reserving),
            measured(Configuration::Blocking, locking),
        ],
    }
}

fn told(figures: &Figures, topic: &str, part: &str) -> Conclusion {
    let all = conclude(figures);
    let found = all.iter().find(|one| one.topic == topic && one.text.contains(part));
    found.unwrap_or_else(|| panic!("{topic}, {part}: {all:#?}")).clone()
}

#[test]
fn what_differs_is_told_with_its_interval() {
    let one = told(&figures(&[4_000.0, 4_200.0], &[400.0, 410.0]), "commit", "one item");
    assert_eq!(one.told, Told::Clear);
    assert!(one.text.contains("reserving sells 10.1 × as much as locking"), "{}", one.text);
    assert!(verdict(&figures(&[4_000.0, 4_200.0], &[400.0, 410.0])).contains("10.1 ×"));
}

#[test]
fn noise_is_told_as_such() {
    let one = told(&figures(&[600.0, 800.0, 700.0], &[700.0, 650.0, 720.0]), "commit", "one item");
    assert_eq!(one.told, Told::Unclear);
    assert!(one.text.contains("tell no difference"), "{}", one.text);
    let one = told(&figures(&[500.0, 5_000.0], &[800.0, 1_000.0]), "commit", "one item");
    assert_eq!(one.told, Told::Unclear);
    assert!(one.text.contains("too far apart"), "{}", one.text);
    let one = told(&figures(&[500.0], &[80.0]), "commit", "one item");
    assert_eq!(one.told, Told::Unclear);
    assert!(one.text.contains("one round"), "{}", one.text);
}

#[test]
fn what_is_missing_is_told_as_such() {
    let figures = figures(&[500.0], &[]);
    for (topic, part) in
        [("commit", "one item"), ("death", "No coordinator"), ("death, one item", "No coordinator")]
    {
        assert_eq!(told(&figures, topic, part).told, Told::Missing, "{topic}");
    }
    let mut alone = figures;
    alone.configurations.truncate(1);
    assert_eq!(conclude(&alone).len(), 1, "nothing to compare with");
}

#[test]
fn who_is_stuck_counts_only_if_nobody_was_before() {
    let with = |before: u64, locking: &[u64]| {
        let mut figures = figures(&[1.0], &[1.0]);
        figures.configurations[0].crashes.push(crash(before, 0, 300.0));
        let crashes = locking.iter().map(|stuck| crash(0, *stuck, 5_000.0));
        figures.configurations[1].crashes.extend(crashes);
        told(&figures, "death", "A pod died")
    };
    let clear = with(0, &[40, 20]);
    assert_eq!(clear.told, Told::Clear);
    assert!(
        clear.text.contains("60 (40 to 80)") && clear.text.contains("nothing at all was sold for 0.3 s"),
        "{}",
        clear.text
    );
    let one_of_two = with(0, &[40, 0]);
    assert!(
        one_of_two.told == Told::Clear && one_of_two.text.contains("in 1 of 2 deaths"),
        "{}",
        one_of_two.text
    );
    assert_eq!(with(0, &[0, 0]).told, Told::Unclear);
    assert_eq!(with(50, &[40]).told, Told::Unclear, "the machine was too busy");
}

#[test]
fn one_item_stands_still_or_a_death_has_missed() {
    let with = |reserving: &[f64], locking: &[f64]| {
        let mut figures = figures(&[1.0], &[1.0]);
        figures.configurations[0].hot_silences_ms = reserving.to_vec();
        figures.configurations[1].hot_silences_ms = locking.to_vec();
        told(&figures, "death, one item", "While all")
    };
    let clear = with(&[40.0, 60.0], &[2_400.0, 60.0]);
    assert_eq!(clear.told, Told::Clear);
    assert!(clear.text.contains("in 1 of them") && clear.text.contains("is 40 × as long."), "{}", clear.text);
    let missed = with(&[40.0, 60.0], &[100.0, 20.0]);
    assert_eq!(missed.told, Told::Unclear);
    assert!(missed.text.contains("None of these deaths"), "{}", missed.text);
    assert_eq!(with(&[2_000.0], &[2_000.0]).told, Told::Unclear);
    let short = with(&[0.0], &[2_000.0]);
    assert!(
        short.text.contains("less than 0.02 s") && short.text.contains("at least 100 ×"),
        "{}",
        short.text
    );
}

#[test]
fn whatever_is_wrong_comes_first() {
    let mut wrong = figures(&[1.0], &[1.0]);
    assert_eq!(conclude(&wrong)[0].told, Told::Clear);
    wrong.configurations[1].verified = Some([0, 1, 0, 0]);
    assert!(!wrong.is_good());
    let first = &conclude(&wrong)[0];
    assert_eq!(first.told, Told::Wrong);
    assert!(first.text.contains("blocking commit"), "{}", first.text);
    wrong.configurations[1].verified = None;
    assert!(!wrong.is_good(), "what was not verified is not good");
}
