//! The store in one SQLite file, in WAL mode and with every decision synced to the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row, SqlSafeStr};
use tokio::sync::Mutex;

use super::{
    Change, HistoryRecord, PATIENCE, Pending, Remembered, RolloutRecord, SteeringChange,
    SteeringRecord, Store, StoreError,
};

/// The schema, change by change. Ones that were released are never edited: a file remembers what
/// was done to it, by checksum.
const SCHEMA: [(i64, &str, &str); 1] =
    [(1, "rollouts, steering, history", include_str!("schema-1.sql"))];

/// How long another process that writes to the file is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// A SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// One connection: calls are few, and SQLite writes one after the other anyway.
    connection: Mutex<SqliteConnection>,
}

impl Sqlite {
    /// Opens the file, makes it where there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = tokio::time::timeout(PATIENCE, connect(path)).await;
        let connection = opened.map_err(|_| StoreError::Slow { path: path.to_owned() })??;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Waits for `work` as long as a call may take.
    async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(outcome) => outcome.map_err(|error| failed(&self.path, &error)),
            Err(_) => Err(StoreError::Slow { path: self.path.clone() }),
        }
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(|error| failed(path, &error))?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| failed(path, &error))?;
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        let kind = MigrationType::Simple;
        Migration::new(version, description.into(), kind, sql.into_sql_str(), false)
    };
    let migrator = Migrator::with_migrations(SCHEMA.map(migration).to_vec());
    match migrator.run(&mut connection).await {
        Ok(()) => Ok(connection),
        Err(MigrateError::VersionMissing(found)) => {
            let known = SCHEMA.last().map_or(0, |(version, ..)| *version);
            Err(StoreError::Newer { path: path.to_owned(), found, known })
        }
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { path: path.to_owned(), reason: error.to_string() }
}

/// SQLite's integers have a sign; times and numbers of versions stay far below its end.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn rollout(row: &SqliteRow) -> Result<RolloutRecord, sqlx::Error> {
    Ok(RolloutRecord {
        id: row.try_get("id")?,
        model: row.try_get("model")?,
        candidate: unsigned(row, "candidate")?,
        candidate_digest: row.try_get("candidate_digest")?,
        primary: unsigned(row, "primary_version")?,
        primary_digest: row.try_get("primary_digest")?,
        stage: u32::try_from(unsigned(row, "stage")?).unwrap_or(u32::MAX),
        state: row.try_get("state")?,
        plan: row.try_get("plan")?,
        progress: row.try_get("progress")?,
        started_at: unsigned(row, "started_at")?,
        stage_at: unsigned(row, "stage_at")?,
        updated_at: unsigned(row, "updated_at")?,
        reason: row.try_get("reason")?,
    })
}

fn steering(row: &SqliteRow) -> Result<SteeringRecord, sqlx::Error> {
    Ok(SteeringRecord {
        model: row.try_get("model")?,
        steering: row.try_get("steering")?,
        wish: row.try_get("wish")?,
        since: unsigned(row, "since")?,
    })
}

fn history(row: &SqliteRow) -> Result<HistoryRecord, sqlx::Error> {
    Ok(HistoryRecord {
        id: row.try_get("id")?,
        at: unsigned(row, "at")?,
        model: row.try_get("model")?,
        who: row.try_get("who")?,
        what: row.try_get("what")?,
        from: row.try_get("from_text")?,
        to: row.try_get("to_text")?,
        reason: row.try_get("reason")?,
        digest_from: row.try_get("digest_from")?,
        digest_to: row.try_get("digest_to")?,
        figures: row.try_get("figures")?,
    })
}

/// Writes a rollout's row and returns its number.
async fn write_rollout(
    connection: &mut SqliteConnection,
    record: RolloutRecord,
) -> Result<i64, sqlx::Error> {
    let sql = "INSERT INTO rollouts (id, model, candidate, candidate_digest, primary_version, primary_digest, stage, state, plan, progress, started_at, stage_at, updated_at, reason)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET candidate_digest = excluded.candidate_digest,
            primary_digest = excluded.primary_digest, stage = excluded.stage, state = excluded.state,
            plan = excluded.plan, progress = excluded.progress, stage_at = excluded.stage_at,
            updated_at = excluded.updated_at, reason = excluded.reason
        RETURNING id";
    let row = sqlx::query(sql)
        .bind((record.id != 0).then_some(record.id))
        .bind(record.model)
        .bind(integer(record.candidate))
        .bind(record.candidate_digest)
        .bind(integer(record.primary))
        .bind(record.primary_digest)
        .bind(i64::from(record.stage))
        .bind(record.state)
        .bind(record.plan)
        .bind(record.progress)
        .bind(integer(record.started_at))
        .bind(integer(record.stage_at))
        .bind(integer(record.updated_at))
        .bind(record.reason)
        .fetch_one(connection)
        .await?;
    row.try_get("id")
}

async fn write_steering(
    connection: &mut SqliteConnection,
    change: SteeringChange,
) -> Result<(), sqlx::Error> {
    match change {
        SteeringChange::Set(SteeringRecord { model, steering, wish, since }) => {
            let sql = "INSERT INTO steering (model, steering, wish, since) VALUES (?, ?, ?, ?)
                ON CONFLICT (model) DO UPDATE SET steering = excluded.steering,
                    wish = excluded.wish, since = excluded.since";
            let query = sqlx::query(sql).bind(model).bind(steering).bind(wish).bind(integer(since));
            query.execute(connection).await?;
        }
        SteeringChange::Withdraw { model } => {
            let query = sqlx::query("DELETE FROM steering WHERE model = ?").bind(model);
            query.execute(connection).await?;
        }
    }
    Ok(())
}

async fn write_history(
    connection: &mut SqliteConnection,
    record: HistoryRecord,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO history (at, model, who, what, from_text, to_text, reason, digest_from, digest_to, figures)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(integer(record.at))
        .bind(record.model)
        .bind(record.who)
        .bind(record.what)
        .bind(record.from)
        .bind(record.to)
        .bind(record.reason)
        .bind(record.digest_from)
        .bind(record.digest_to)
        .bind(record.figures)
        .execute(connection)
        .await?;
    Ok(())
}

impl Store for Sqlite {
    fn remembered(&self) -> Pending<'_, Remembered> {
        Box::pin(self.timed(async move {
            let mut connection = self.connection.lock().await;
            let sql = "SELECT * FROM rollouts WHERE state IN ('running', 'paused') ORDER BY id";
            let rows = sqlx::query(sql).fetch_all(&mut *connection).await?;
            let rollouts = rows.iter().map(rollout).collect::<Result<_, _>>()?;
            let sql = "SELECT * FROM steering ORDER BY model";
            let rows = sqlx::query(sql).fetch_all(&mut *connection).await?;
            let steering = rows.iter().map(steering).collect::<Result<_, _>>()?;
            Ok(Remembered { rollouts, steering })
        }))
    }

    fn change(&self, change: Change) -> Pending<'_, Option<i64>> {
        Box::pin(self.timed(async move {
            let mut connection = self.connection.lock().await;
            // One that is given up on the way is rolled back.
            let mut transaction = connection.begin().await?;
            let mut id = None;
            if let Some(record) = change.rollout {
                id = Some(write_rollout(&mut transaction, record).await?);
            }
            if let Some(steering) = change.steering {
                write_steering(&mut transaction, steering).await?;
            }
            if let Some(record) = change.history {
                write_history(&mut transaction, record).await?;
            }
            transaction.commit().await?;
            Ok(id)
        }))
    }

    fn progress(&self, rollout: i64, progress: String) -> Pending<'_, ()> {
        Box::pin(self.timed(async move {
            let mut connection = self.connection.lock().await;
            let sql =
                "UPDATE rollouts SET progress = ? WHERE id = ? AND state IN ('running', 'paused')";
            sqlx::query(sql).bind(progress).bind(rollout).execute(&mut *connection).await?;
            Ok(())
        }))
    }

    fn history(&self, model: Option<String>, most: u32) -> Pending<'_, Vec<HistoryRecord>> {
        Box::pin(self.timed(async move {
            let mut connection = self.connection.lock().await;
            let sql =
                "SELECT * FROM history WHERE ?1 IS NULL OR model = ?1 ORDER BY id DESC LIMIT ?2";
            let query = sqlx::query(sql).bind(model).bind(i64::from(most));
            let rows = query.fetch_all(&mut *connection).await?;
            rows.iter().map(history).collect()
        }))
    }

    fn rollouts(&self, model: Option<String>, most: u32) -> Pending<'_, Vec<RolloutRecord>> {
        Box::pin(self.timed(async move {
            let mut connection = self.connection.lock().await;
            let sql =
                "SELECT * FROM rollouts WHERE ?1 IS NULL OR model = ?1 ORDER BY id DESC LIMIT ?2";
            let query = sqlx::query(sql).bind(model).bind(i64::from(most));
            let rows = query.fetch_all(&mut *connection).await?;
            rows.iter().map(rollout).collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(work)
    }

    fn record(model: &str) -> RolloutRecord {
        RolloutRecord {
            id: 0,
            model: model.to_owned(),
            candidate: 2,
            candidate_digest: "sha256:b".to_owned(),
            primary: 1,
            primary_digest: "sha256:a".to_owned(),
            stage: 0,
            state: "running".to_owned(),
            plan: "{}".to_owned(),
            progress: "{}".to_owned(),
            started_at: 7,
            stage_at: 8,
            updated_at: 9,
            reason: String::new(),
        }
    }

    fn line(model: &str, what: &str) -> HistoryRecord {
        HistoryRecord {
            id: 0,
            at: 10,
            model: model.to_owned(),
            who: "gates".to_owned(),
            what: what.to_owned(),
            from: "1".to_owned(),
            to: "2".to_owned(),
            reason: "good".to_owned(),
            digest_from: "sha256:a".to_owned(),
            digest_to: "sha256:b".to_owned(),
            figures: String::new(),
        }
    }

    fn set(model: &str, wish: &str) -> SteeringChange {
        let (model, wish) = (model.to_owned(), wish.to_owned());
        SteeringChange::Set(SteeringRecord {
            model,
            steering: "{\"primary\":1}".to_owned(),
            wish,
            since: 3,
        })
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/tidegate.db");
        block_on(async {
            let store = Sqlite::open(&path).await.unwrap();
            let change = Change {
                rollout: Some(record("m")),
                steering: Some(set("m", "latest")),
                history: Some(line("m", "started")),
            };
            assert_eq!(store.change(change).await.unwrap(), Some(1));
            store.progress(1, "[5]".to_owned()).await.unwrap();
        });
        block_on(async {
            let store = Sqlite::open(&path).await.unwrap();
            let Remembered { rollouts, steering } = store.remembered().await.unwrap();
            let expected = RolloutRecord { id: 1, progress: "[5]".to_owned(), ..record("m") };
            assert_eq!(rollouts, std::slice::from_ref(&expected));
            assert_eq!(steering[0].wish, "latest");
            let ended = RolloutRecord { state: "promoted".to_owned(), stage: 3, ..expected };
            let change = Change {
                rollout: Some(ended),
                steering: Some(SteeringChange::Withdraw { model: "m".to_owned() }),
                history: Some(line("m", "promoted")),
            };
            assert_eq!(store.change(change).await.unwrap(), Some(1));
            let Remembered { rollouts, steering } = store.remembered().await.unwrap();
            assert!(rollouts.is_empty() && steering.is_empty());
            let lines = store.history(Some("m".to_owned()), 10).await.unwrap();
            let whats: Vec<&str> = lines.iter().map(|line| line.what.as_str()).collect();
            assert_eq!(whats, ["promoted", "started"]);
            assert!(store.history(Some("n".to_owned()), 10).await.unwrap().is_empty());
            assert_eq!(store.rollouts(None, 10).await.unwrap()[0].stage, 3);
        });
    }

    #[test]
    fn a_change_is_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let store = Sqlite::open(&folder.path().join("s.db")).await.unwrap();
            let start = |history| Change { rollout: Some(record("m")), steering: None, history };
            store.change(start(None)).await.unwrap();
            // A second rollout of the model: refused, and nothing of it is kept.
            let second = store.change(start(Some(line("m", "started")))).await;
            assert!(second.unwrap_err().to_string().contains("UNIQUE"));
            assert!(store.history(None, 10).await.unwrap().is_empty());
            assert_eq!(store.rollouts(None, 10).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn a_newer_schema_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        block_on(async {
            let store = Sqlite::open(&path).await.unwrap();
            let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                VALUES (9, 'of the future', 1, x'00', 0)";
            sqlx::query(sql).execute(&mut *store.connection.lock().await).await.unwrap();
            drop(store);
            let error = Sqlite::open(&path).await.unwrap_err();
            assert!(matches!(error, StoreError::Newer { found: 9, known: 1, .. }), "{error}");
            assert!(error.to_string().contains("start the version that wrote it"), "{error}");
            // Another file: connections close in their own time, and write to theirs until then.
            let path = folder.path().join("other.db");
            std::fs::write(&path, "not a database, but long enough to be looked at").unwrap();
            let error = Sqlite::open(&path).await.unwrap_err();
            assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        });
    }
}
