//! This program as a child process: one JSON line per question, one per answer; the end of the questions ends it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::Measured;

/// What `metanode` sets for itself; every process here has it, so that they compare.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "268435456")];

/// A role of this program in a process of its own. Killed when dropped.
pub(crate) struct Child {
    process: Process,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts `role`, gives it `order` and waits for its word that it is ready.
    pub(crate) fn start<T: DeserializeOwned>(role: &str, order: &impl Serialize) -> Measured<(Self, T)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.envs(ALLOCATOR.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
        let mut process = command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("a child without output")?);
        let mut child = Self { process, questions, answers };
        let ready = child.ask(order)?;
        Ok((child, ready))
    }

    /// Asks and waits; the runtime's other tasks go on.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize) -> Measured<T> {
        tokio::task::block_in_place(|| {
            let mut line = serde_json::to_string(question)?;
            line.push('\n');
            self.questions.as_mut().ok_or("the child was told to end")?.write_all(line.as_bytes())?;
            line.clear();
            if self.answers.read_line(&mut line)? == 0 {
                return Err("a child process ended early; its words are above".into());
            }
            Ok(serde_json::from_str(&line)?)
        })
    }

    /// Lets the child end by itself.
    pub(crate) fn stop(mut self) -> Measured<()> {
        drop(self.questions.take());
        let status = tokio::task::block_in_place(|| self.process.wait())?;
        if status.success() { Ok(()) } else { Err(format!("a child process ended with {status}").into()) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as good.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The child's end: questions as they come.
pub(crate) struct Questions(mpsc::UnboundedReceiver<String>);

impl Questions {
    /// Starts to read them, and gives the first, which is the order.
    pub(crate) async fn open<T: DeserializeOwned>() -> Measured<(T, Self)> {
        let (lines, questions) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut questions = Self(questions);
        let order = questions.next().await?.ok_or("no order was given")?;
        Ok((order, questions))
    }

    /// The next question; `None` when it is time to end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Measured<Option<T>> {
        Ok(match self.0.recv().await {
            Some(line) => Some(serde_json::from_str(&line)?),
            None => None,
        })
    }
}

/// Answers one question.
pub(crate) fn answer(answer: &impl Serialize) -> Measured<()> {
    println!("{}", serde_json::to_string(answer)?);
    std::io::stdout().flush()?;
    Ok(())
}
