//! `storage distributed durability`: the model of `diaspore_policy::durability`, with everything it was given printed beside what it says.

use diaspore_policy::durability::{Formula, Model, Simulated, simulate};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::cli::storage::Durability;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, as_f64, grouped, note};

/// Inputs, formula and simulation, for programs.
#[derive(Debug, Serialize)]
struct Answer {
    is_a_model: bool,
    providers: u8,
    blocks: u32,
    years: f64,
    k: u8,
    n: u8,
    annual_failure_rate: f64,
    shard_loss_rate: f64,
    repair_hours: Option<f64>,
    repairs_per_hour: Option<f64>,
    runs: u32,
    seed: u64,
    formula_loss_probability: f64,
    formula_expected_lost_blocks: f64,
    formula_mean_years_to_loss: Option<f64>,
    formula_nines: Option<f64>,
    simulated_provider_losses: u64,
    simulated_shard_losses: u64,
    simulated_repairs: u64,
    simulated_loss_events: u64,
    simulated_lost_blocks: u64,
    simulated_runs_without_loss: u32,
    simulated_most_missing: u32,
    simulated_nines: Option<f64>,
}

/// Runs the model and prints it.
pub(crate) fn run(output: Format, flags: &Durability) -> Outcome {
    let some = |value: f64| (value != 0.0).then_some(value);
    let model = Model {
        providers: flags.providers,
        blocks: flags.blocks,
        years: flags.years,
        k: flags.k,
        n: flags.n,
        provider_losses_per_year: flags.annual_failure_rate,
        shard_losses_per_year: flags.shard_loss_rate,
        repair_hours: some(flags.repair_hours),
        repairs_per_hour: some(flags.repairs_per_hour),
    };
    model.check().map_err(|error| Failure::usage(error.to_string()))?;
    let (mut total, mut clean) = (Simulated::default(), 0);
    for run in 0..flags.runs {
        let found = simulate(&model, &mut StdRng::seed_from_u64(flags.seed.wrapping_add(run.into())))
            .map_err(|error| Failure::usage(error.to_string()))?;
        if flags.runs > 1 && found.lost_blocks > 0 {
            note(&format!("run {}: {} blocks lost in {} events", run + 1, grouped(found.lost_blocks), found.loss_events));
        }
        clean += u32::from(found.lost_blocks == 0);
        total.provider_losses += found.provider_losses;
        total.shard_losses += found.shard_losses;
        total.repairs += found.repairs;
        total.loss_events += found.loss_events;
        total.lost_blocks += found.lost_blocks;
        total.most_missing = total.most_missing.max(found.most_missing);
    }
    let answer = answer(flags, &model, model.formula(), &total, clean);
    output.print(&answer, || text(&answer))
}

fn answer(flags: &Durability, model: &Model, formula: Formula, total: &Simulated, clean: u32) -> Answer {
    let block_years = f64::from(model.blocks) * model.years * f64::from(flags.runs);
    let finite = |value: f64| value.is_finite().then_some(value);
    Answer {
        is_a_model: true,
        providers: model.providers,
        blocks: model.blocks,
        years: model.years,
        k: model.k,
        n: model.n,
        annual_failure_rate: model.provider_losses_per_year,
        shard_loss_rate: model.shard_losses_per_year,
        repair_hours: model.repair_hours,
        repairs_per_hour: model.repairs_per_hour,
        runs: flags.runs,
        seed: flags.seed,
        formula_loss_probability: formula.loss_probability,
        formula_expected_lost_blocks: formula.expected_lost_blocks,
        formula_mean_years_to_loss: finite(formula.mean_years_to_loss),
        formula_nines: finite(formula.nines),
        simulated_provider_losses: total.provider_losses,
        simulated_shard_losses: total.shard_losses,
        simulated_repairs: total.repairs,
        simulated_loss_events: total.loss_events,
        simulated_lost_blocks: total.lost_blocks,
        simulated_runs_without_loss: clean,
        simulated_most_missing: total.most_missing,
        simulated_nines: finite(-(as_f64(total.lost_blocks) / block_years).log10()),
    }
}

fn text(answer: &Answer) -> String {
    let or = |value: Option<f64>, none: &str, unit: &str| value.map_or_else(|| none.to_owned(), |value| format!("{value}{unit}"));
    let nines = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let block_years = f64::from(answer.blocks) * answer.years * f64::from(answer.runs);
    let seen = if answer.simulated_lost_blocks == 0 {
        format!("none seen in {block_years:.0} block-years; at least {:.2} only if blocks failed one by one", (block_years / 3.0).log10())
    } else {
        nines(answer.simulated_nines)
    };
    [
        "A model, not a promise: it knows the rates below and nothing else, no operator, no defect, no vendors that fail together.".to_owned(),
        format!("Providers: {} ({} lost per provider and year, with every shard)", answer.providers, answer.annual_failure_rate),
        format!("Blocks: {} (any {} of {} rebuild; {} shards lost per shard and year)", grouped(answer.blocks.into()), answer.k, answer.n, answer.shard_loss_rate),
        format!(
            "Repair: {}, {}",
            or(answer.repair_hours, "never", " h on average"),
            or(answer.repairs_per_hour, "any number at once", " shards per hour at most")
        ),
        format!("Time: {} years, {} runs from seed {}", answer.years, answer.runs, answer.seed),
        format!(
            "Formula (Markov chain of one block): P(block lost) {:.3e}, {:.3e} blocks expected, mean time to loss {} years",
            answer.formula_loss_probability,
            answer.formula_expected_lost_blocks,
            answer.formula_mean_years_to_loss.map_or_else(|| "infinite".to_owned(), |years| format!("{years:.3e}"))
        ),
        format!("Formula, Nines per Block and Year: {}", nines(answer.formula_nines)),
        format!(
            "Simulation: {} providers lost, {} single shards lost, {} shards rebuilt, at most {} shards of a surviving block missing at once",
            grouped(answer.simulated_provider_losses),
            grouped(answer.simulated_shard_losses),
            grouped(answer.simulated_repairs),
            answer.simulated_most_missing
        ),
        format!(
            "Simulation, Loss Events: {} ({} blocks; {} of {} runs lost nothing)",
            grouped(answer.simulated_loss_events),
            grouped(answer.simulated_lost_blocks),
            answer.simulated_runs_without_loss,
            answer.runs
        ),
        format!("Simulation, Nines per Block and Year: {seen}"),
    ]
    .join("\n")
}
