//! What several callers ask at the same time is asked once.

use std::time::Duration;

use metering::Unavailable;
use tokio::sync::{mpsc, oneshot};

/// Hands questions to a task, which asks for all that wait. It ends with the last clone.
pub(crate) struct Together<Question, Answer> {
    waiting: mpsc::Sender<Waiting<Question, Answer>>,
    store: &'static str,
}

struct Waiting<Question, Answer> {
    question: Question,
    answer: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// How many are asked together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// Questions of one asking; as many may wait for the next one.
    pub(crate) questions_max: usize,
    /// How long the first one waits for others, beside those who come during the asking before.
    pub(crate) patience: Duration,
}

impl<Question, Answer> Together<Question, Answer>
where
    Question: Send + 'static,
    Answer: Send + 'static,
{
    /// Starts the task. `ask` answers each question, in their order; its error goes to all of them.
    pub(crate) fn start<Asking>(
        store: &'static str,
        gathering: Gathering,
        ask: impl Fn(Vec<Question>) -> Asking + Send + 'static,
    ) -> Self
    where
        Asking: Future<Output = Result<Vec<Answer>, Unavailable>> + Send + 'static,
    {
        let (waiting, queue) = mpsc::channel(gathering.questions_max);
        tokio::spawn(ask_what_waits(queue, gathering, ask));
        Self { waiting, store }
    }

    /// Asks with others.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answer, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let gone = || Unavailable::new(self.store, "the task that asks it has ended");
        self.waiting.send(Waiting { question, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl<Question, Answer> Clone for Together<Question, Answer> {
    fn clone(&self) -> Self {
        Self { waiting: self.waiting.clone(), store: self.store }
    }
}

async fn ask_what_waits<Question, Answer, Asking>(
    mut queue: mpsc::Receiver<Waiting<Question, Answer>>,
    gathering: Gathering,
    ask: impl Fn(Vec<Question>) -> Asking,
) where
    Asking: Future<Output = Result<Vec<Answer>, Unavailable>>,
{
    while let Some(first) = queue.recv().await {
        if !gathering.patience.is_zero() {
            tokio::time::sleep(gathering.patience).await;
        }
        let mut waiting = vec![first];
        while waiting.len() < gathering.questions_max
            && let Ok(another) = queue.try_recv()
        {
            waiting.push(another);
        }
        // Whoever went away asks for nothing any more.
        waiting.retain(|one| !one.answer.is_closed());
        let (questions, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|one| (one.question, one.answer)).unzip();
        if questions.is_empty() {
            continue;
        }
        match ask(questions).await {
            // One without an answer hears that the task has dropped it.
            Ok(all) => answers.into_iter().zip(all).for_each(|(to, one)| drop(to.send(Ok(one)))),
            Err(error) => answers.into_iter().for_each(|to| drop(to.send(Err(error.clone())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// The questions of each asking.
    type Asked = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Answers twice the question, and an error to all when one of them is 0.
    fn doubling(patience: Duration) -> (Together<u32, u32>, Asked) {
        let asked = Asked::default();
        let noted = asked.clone();
        let gathering = Gathering { questions_max: 3, patience };
        let together = Together::start("ledger", gathering, move |questions: Vec<u32>| {
            noted.lock().unwrap().push(questions.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if questions.contains(&0) {
                    return Err(Unavailable::new("ledger", "away"));
                }
                Ok(questions.into_iter().map(|one| one * 2).collect())
            }
        });
        (together, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_during_an_asking_shares_the_next_one() {
        let (together, asked) = doubling(Duration::ZERO);
        let ask = |one| together.ask(one);
        let others = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            tokio::try_join!(ask(2), ask(3), ask(4), ask(5))
        };
        assert_eq!(tokio::try_join!(ask(1), others).unwrap(), (2, (4, 6, 8, 10)));
        assert_eq!(*asked.lock().unwrap(), [vec![1], vec![2, 3, 4], vec![5]]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_gathers_and_who_left_is_not_asked_for() {
        let (together, asked) = doubling(PATIENCE);
        let left = tokio::time::timeout(PATIENCE / 2, together.ask(7));
        let (left, stayed) = tokio::join!(left, together.ask(8));
        assert!(left.is_err());
        assert_eq!(stayed.unwrap(), 16);
        assert_eq!(*asked.lock().unwrap(), [vec![8]]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_reaches_all_and_the_next_one_is_asked_anew() {
        let (together, _) = doubling(PATIENCE);
        let (of_0, of_1) = tokio::join!(together.ask(0), together.ask(1));
        assert_eq!([of_0.unwrap_err().reason, of_1.unwrap_err().reason], ["away", "away"]);
        assert_eq!(together.ask(1).await.unwrap(), 2);
    }
}
