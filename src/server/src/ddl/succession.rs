//! What goes with a materialized view that is replaced. A dependant's plan stays what it is; where
//! the new view lacks something that the plan relies on, the dependant's text is planned over the
//! new view, if that text means here and now what the plan has: under this search path and time
//! zone, it gives the same plan over the old one.

use crate::Server;
use crate::session::Session;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result};
use tidemark_plan::succession::{Followers, Maker, Pairs, follow};
use tidemark_plan::{Catalog, Relation, RelationKind};
use tidemark_planner::Planner;

impl Session {
    /// What goes with a materialized view that is replaced by `new`.
    pub(super) async fn followers(
        &mut self,
        catalog: &Arc<Catalog>,
        replaced: Option<RelationId>,
        new: &Relation,
    ) -> Result<Followers> {
        let old = replaced.and_then(|id| catalog.relations.get(&id));
        let of_views = |r: &Relation| r.kind == RelationKind::MaterializedView;
        let Some(old) = old.filter(|old| of_views(old) && of_views(new)) else {
            return Ok(Followers::default());
        };
        if !catalog.rests_a_job_on(old.id) {
            return Ok(Followers::default());
        }
        let settings = &self.asker.settings;
        let mut planning = Planning {
            server: self.server.clone(),
            catalog: catalog.clone(),
            search_path: settings.search_path(),
            zone: settings.get("timezone").unwrap_or("UTC").to_string(),
        };
        let (old, new) = (old.clone(), new.clone());
        let work = move || follow(&planning.catalog.clone(), &old, &new, &mut planning);
        self.server.serving.planning.run(work).await
    }
}

/// Plans what follows, as the session would.
struct Planning {
    server: Arc<Server>,
    catalog: Arc<Catalog>,
    search_path: Vec<String>,
    zone: String,
}

impl Planning {
    fn planner(&self, catalog: Catalog) -> Planner {
        let sql = &self.server.commons.sql;
        let planner = sql.planner(Arc::new(catalog), &self.search_path);
        planner.in_zone(&self.zone)
    }

    /// What the text of a relation gives, which knows the relations of the catalog as `reader`
    /// does.
    fn planned(&self, mut catalog: Catalog, reader: &Relation) -> Result<Relation> {
        for (id, names) in &reader.altered.known_as {
            if let Some(relation) = catalog.relations.get_mut(id) {
                *relation = Arc::new(relation.known_as(names));
            }
        }
        let statement = tidemark_planner::parse_stored(&reader.definition)?.pop();
        let statement = statement.ok_or_else(|| Error::internal("a view without a text"))?;
        let mut known = reader.clone();
        known.altered.known_as.clear();
        let planner = self.planner(catalog).for_text_of(known);
        let planned = planner.plan_create(reader.id, &statement, &reader.owner)?;
        Ok(planned.relation)
    }
}

impl Maker for Planning {
    fn number(&mut self, _: &Relation) -> Result<RelationId> {
        Ok(self.server.engine.allocate_id())
    }

    fn plan(
        &mut self,
        of: &Relation,
        after: &Relation,
        places: &[(RelationId, Relation)],
    ) -> Result<Option<Relation>> {
        let means = self.planned(Catalog::clone(&self.catalog), of);
        if means.map_or(true, |means| means.job != of.job) {
            return Ok(None);
        }
        let mut catalog = Catalog::clone(&self.catalog);
        for (_, new) in places {
            catalog.relations.insert(new.id, Arc::new(new.clone()));
        }
        let pairs: Pairs = places.iter().map(|(old, new)| (*old, new.id)).collect();
        catalog.read_successors(&pairs);
        catalog.relations.retain(|id, _| !pairs.contains_key(id));
        let planned = self.planned(catalog, after);
        let named = |e: Error| e.context(format!("{} \"{}\"", of.kind.name(), of.name));
        planned.map(Some).map_err(named)
    }
}
