//! How the story looks in a terminal: colour only there, plain text elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::Result;

/// Lines of a long text that are shown.
const SHOWN_LINES: usize = 40;
/// Width of the rules between scenarios.
const WIDTH: usize = 88;

/// Prints the story and keeps count of how it goes.
pub struct Stage {
    colour: bool,
    scenario: String,
    steps: u32,
    good: u32,
    bad: Vec<String>,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
    Yellow,
}

impl Stage {
    /// The curtain rises.
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, scenario: String::new(), steps: 0, good: 0, bad: Vec::new() }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Green => "32",
            Ink::Red => "31",
            Ink::Cyan => "36",
            Ink::Yellow => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Opens a scenario.
    pub fn scenario(&mut self, name: &str, title: &str) {
        name.clone_into(&mut self.scenario);
        self.steps = 0;
        let head = format!("━━ {name} · {title} ");
        let rule = "━".repeat(WIDTH.saturating_sub(head.chars().count()));
        println!("\n{}", self.ink(Ink::Bold, &format!("{head}{rule}")));
    }

    /// A step: what is done, and in its last line what came of it. An error is a bad mark, and the story goes on.
    pub fn step(&mut self, title: &str, play: impl FnOnce(&Self) -> Result<String>) {
        self.steps += 1;
        let number = format!("{}.{}", self.scenario.rsplit(' ').next().unwrap_or_default(), self.steps);
        println!("\n {} {}", self.ink(Ink::Cyan, &number), self.ink(Ink::Bold, title));
        let start = Instant::now();
        let outcome = play(self);
        let took = self.ink(Ink::Dim, &format!("[{:.1} s]", start.elapsed().as_secs_f32()));
        match outcome {
            Ok(measured) => {
                self.good += 1;
                println!("     {} {measured} {took}", self.ink(Ink::Green, "✓"));
            }
            Err(error) => {
                println!(
                    "     {} {} {took}",
                    self.ink(Ink::Red, "✗"),
                    self.ink(Ink::Red, &format!("{error:#}"))
                );
                self.bad.push(format!("{number} {title}"));
            }
        }
    }

    /// A manifest that is applied.
    pub fn manifest(&self, yaml: &str) {
        self.block(yaml, |line| {
            if line.trim_start().starts_with('#') {
                return self.ink(Ink::Dim, line);
            }
            match line.split_once(':') {
                Some((key, rest)) if !key.contains('"') => {
                    format!("{}:{}", self.ink(Ink::Cyan, key), self.ink(Ink::Yellow, rest))
                }
                _ => line.to_owned(),
            }
        });
    }

    /// What a program printed.
    pub fn output(&self, text: &str) {
        self.block(text, |line| self.ink(Ink::Dim, line));
    }

    fn block(&self, text: &str, paint: impl Fn(&str) -> String) {
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in lines.iter().take(SHOWN_LINES) {
            println!("     {} {}", self.ink(Ink::Dim, "│"), paint(line));
        }
        if lines.len() > SHOWN_LINES {
            println!("     {} … {} more lines", self.ink(Ink::Dim, "│"), lines.len() - SHOWN_LINES);
        }
    }

    /// A command as a person would type it.
    pub fn command(&self, words: &str) {
        println!("     {} {words}", self.ink(Ink::Green, "$"));
    }

    /// An aside.
    pub fn say(&self, text: &str) {
        println!("     {}", self.ink(Ink::Dim, text));
    }

    /// A share as a bar: `v1 ▇▇▇▇▇▇▇▇▇▁ 95.1 %`.
    pub fn share(&self, name: &str, percent: f64) {
        #[expect(clippy::cast_sign_loss, reason = "a share is not below 0")]
        let filled = ((percent / 2.5).round() as usize).min(40);
        let bar = format!("{}{}", "▇".repeat(filled), "·".repeat(40 - filled));
        println!("     {name:<4} {} {percent:5.1} %", self.ink(Ink::Yellow, &bar));
    }

    /// How many steps went well, and the titles of the others.
    pub fn score(&self) -> (u32, &[String]) {
        (self.good, &self.bad)
    }

    /// The end of the story.
    pub fn curtain(&self) {
        println!("\n{}", self.ink(Ink::Bold, &"━".repeat(WIDTH)));
        if self.bad.is_empty() {
            println!(" {} all {} steps went as they should", self.ink(Ink::Green, "✓"), self.good);
        } else {
            println!(" {} {} steps good, {} not:", self.ink(Ink::Red, "✗"), self.good, self.bad.len());
            for step in &self.bad {
                println!("     {step}");
            }
        }
        std::io::stdout().flush().ok();
    }

    /// A heading after the story.
    pub fn heading(&self, text: &str) {
        println!("\n {}", self.ink(Ink::Bold, text));
    }

    /// A line below a heading: what to type or to open, and why.
    pub fn entry(&self, what: &str, why: &str) {
        println!("   {}\n       {}", self.ink(Ink::Cyan, what), self.ink(Ink::Dim, why));
    }
}
