//! `weft install`: puts weft into a cluster, or changes what is there.

mod certified;
mod kustomize;
pub mod node_pod;
pub mod object;
pub mod plan;
pub mod present;
pub mod removal;
pub mod rollout;
pub mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read as _, Write as _};
use std::time::Duration;

use clap::Args;

pub use object::Key;
use object::Object;
use plan::{Action, Step};
use values::Values;

use crate::client::block_on;
use crate::cluster::{Cluster, ClusterAt};
use crate::output::{self, Outcome, Paint, Tone, Usage};

/// Longer is no answer.
const LONGEST_ANSWER: u64 = 64;

/// What to install.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = values::help())]
pub struct Choice {
    /// A choice, for example profile=demo; may be repeated (`--help` lists the keys)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Image of the agent and the controller (as --set image=IMAGE)
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

/// Shows what it will do, asks, applies everything in order and waits until it is ready.
///
/// Done again, with another binary or other settings, it changes what is there: the settings of before are not
/// remembered, so give all of them. Custom resource definitions of Istio that are there already stay as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft install
  weft install --set profile=demo -y
  weft install --set cni.enabled=false --set accessLog=json --image registry.example/weft:0.1.0
  weft install --dry-run | less                        the YAML, and nothing is changed")]
pub struct InstallArgs {
    #[command(flatten)]
    choice: Choice,
    /// Print the YAML that would be applied, and ask no cluster
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Remove what an earlier installation had and this one has not
    #[arg(long)]
    prune: bool,
    /// How long to wait until everything is ready; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    timeout: u64,
    #[command(flatten)]
    cluster: ClusterAt,
}

impl Choice {
    /// As it was meant.
    pub fn values(&self) -> Result<Values, Usage> {
        let image = self.image.as_ref().map(|image| format!("image={image}"));
        Values::parse(self.set.iter().chain(&image).map(String::as_str))
    }
}

/// Objects as one YAML text.
pub fn to_yaml(objects: &[Object]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        text += "---\n";
        text += &serde_saphyr::to_string(&object.0)?;
    }
    Ok(text)
}

impl InstallArgs {
    /// Installs.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let values = self.choice.values()?;
        let objects = values.objects()?;
        if self.dry_run {
            output::print(&to_yaml(&objects)?)?;
            return Ok(Outcome::Good);
        }
        block_on(async { self.install(&self.cluster.connect().await?, &values, objects).await })
    }

    async fn install(
        &self,
        cluster: &Cluster,
        values: &Values,
        objects: Vec<Object>,
    ) -> anyhow::Result<Outcome> {
        let paint = Paint::stdout();
        let title = format!("weft {}, profile {}", env!("CARGO_PKG_VERSION"), values.profile());
        let no_longer = removal::no_longer_wanted(cluster, &objects).await?;
        let steps = plan::plan(cluster, objects).await?;
        let mut text = format!("{}\n{}", paint.word(Tone::Strong, &title), render(&steps, paint)?);
        for key in &no_longer {
            let what = if self.prune { "deletes" } else { "leaves (--prune deletes it)" };
            writeln!(text, "  {}  {key}", paint.word(Tone::Warn, what))?;
        }
        output::print(&text)?;
        let changes = steps.iter().any(|step| matches!(step.action, Action::Create | Action::Update(_)))
            || self.prune && !no_longer.is_empty();
        if changes && !self.yes && !confirmed("Go on?")? {
            output::print("Nothing was changed.\n")?;
            return Ok(Outcome::Bad);
        }
        apply_all(cluster, &steps, Duration::from_secs(self.timeout.max(30)), paint).await?;
        if self.prune {
            for key in &no_longer {
                removal::delete(cluster, key).await?;
                done(&key.to_string(), "deleted", paint)?;
            }
        }
        if self.timeout > 0 {
            let workloads: Vec<Key> = steps
                .iter()
                .map(|step| step.object.key())
                .filter(|key| matches!(&*key.kind, "Deployment" | "DaemonSet"))
                .collect();
            let patience = Duration::from_secs(self.timeout);
            wait(cluster, &workloads, patience, paint).await?;
            certified::wait(cluster, patience, |missing| {
                let waits = paint.word(Tone::Warn, "…");
                // Whoever does not read this is told by the exit code.
                let _ = output::print(&format!("{waits} certificates: {}\n", output::safe(missing)));
            })
            .await?;
            done("certificates", "are signed where pods need them", paint)?;
        }
        let told = match self.timeout {
            0 => paint
                .word(Tone::Warn, "weft is applied, and maybe not ready yet (weft verify-install tells)."),
            _ => paint.word(Tone::Good, "weft is installed."),
        };
        output::print(&format!(
            "{told}  Put a namespace in the mesh: kubectl label namespace default weft.dev/mesh=enabled\n"
        ))?;
        Ok(Outcome::Good)
    }
}

/// Applies what changes, in order; definitions are in force before anything else.
async fn apply_all(
    cluster: &Cluster,
    steps: &[Step],
    patience: Duration,
    paint: Paint,
) -> anyhow::Result<()> {
    let mut definitions = Vec::new();
    for step in steps {
        let key = step.object.key();
        let told = match step.action {
            Action::Create => "created",
            Action::Update(_) => "changed",
            Action::Nothing | Action::Leave => continue,
        };
        let is_definition = key.kind == "CustomResourceDefinition";
        if !is_definition && !definitions.is_empty() {
            rollout::wait(cluster, &std::mem::take(&mut definitions), patience, |_, _| {}).await?;
        }
        plan::apply(cluster, &step.object, false).await?;
        done(&key.to_string(), told, paint)?;
        if is_definition {
            definitions.push(key);
        }
    }
    rollout::wait(cluster, &definitions, patience, |_, _| {}).await
}

async fn wait(cluster: &Cluster, keys: &[Key], patience: Duration, paint: Paint) -> anyhow::Result<()> {
    rollout::wait(cluster, keys, patience, |key, state| {
        let mark = if state.ready { paint.word(Tone::Good, "✓") } else { paint.word(Tone::Warn, "…") };
        // Whoever does not read this is told by the exit code.
        let _ = output::print(&format!("{mark} {key}: {}\n", output::safe(&state.told)));
    })
    .await
}

/// Says that something is done.
pub fn done(what: &str, told: &str, paint: Paint) -> anyhow::Result<()> {
    output::print(&format!("{} {what} {told}\n", paint.word(Tone::Good, "✓")))
}

/// What will be done, by kind.
fn render(steps: &[Step], paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let named = |wanted: fn(&Action) -> bool| {
        let mut by_kind: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
        for Step { object, .. } in steps.iter().filter(|step| wanted(&step.action)) {
            let Key { kind, namespace, name } = object.key();
            let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
            by_kind.entry((object.rank(), kind)).or_default().push(name);
        }
        by_kind
    };
    let mut lines = |told: &str, tone, wanted: fn(&Action) -> bool| -> std::fmt::Result {
        for ((_, kind), names) in named(wanted) {
            writeln!(text, "  {}  {kind} {}", paint.word(tone, told), names.join(", "))?;
        }
        Ok(())
    };
    lines("creates", Tone::Good, |action| *action == Action::Create)?;
    lines("leaves (it is not weft's)", Tone::Faint, |action| *action == Action::Leave)?;
    for Step { object, action } in steps {
        if let Action::Update(changes) = action {
            writeln!(text, "  {}  {}", paint.word(Tone::Warn, "changes"), object.key())?;
            for change in changes {
                writeln!(text, "      {}", output::safe(change))?;
            }
        }
    }
    let same = steps.iter().filter(|step| step.action == Action::Nothing).count();
    if same > 0 {
        writeln!(text, "  {}", output::count(same, "object") + " as it should be")?;
    }
    Ok(text)
}

/// Asks; the answer may come through a pipe.
pub fn confirmed(question: &str) -> anyhow::Result<bool> {
    output::print(&format!("{question} [y/N] "))?;
    io::stdout().flush()?;
    let mut answer = String::new();
    let here = io::stdin().is_terminal();
    io::stdin().lock().take(LONGEST_ANSWER).read_line(&mut answer)?;
    if !here {
        output::print("\n")?;
    }
    is_yes(&answer, here).map_err(Into::into)
}

/// What an answer means. That nobody answers is neither yes nor no, except on a terminal, where it is Ctrl-D.
fn is_yes(answer: &str, here: bool) -> Result<bool, Usage> {
    match answer {
        "" if !here => Err(Usage("nobody is there to say yes; give -y".to_owned())),
        answer => Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_from_people_and_from_pipes() {
        for (answer, here, yes) in [
            ("y\n", false, true),
            ("Yes\r\n", true, true),
            ("n\n", false, false),
            ("\n", false, false),
            ("", true, false),
        ] {
            assert_eq!(is_yes(answer, here).ok(), Some(yes), "{answer:?}");
        }
        assert!(is_yes("", false).is_err(), "an empty pipe");
    }
}
