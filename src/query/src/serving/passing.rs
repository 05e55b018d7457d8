//! A node of a plan that passes on the rows below it as they are, and says something of them: what
//! they were looked up through, for EXPLAIN; the order that they have to come in; or that nothing
//! is known of their order.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements,
};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr,
    PlanProperties,
};
use std::fmt;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Passing {
    input: Arc<dyn ExecutionPlan>,
    says: Says,
    properties: Arc<PlanProperties>,
}

/// What is said of the rows.
#[derive(Clone, Debug)]
enum Says {
    /// They were looked up when the query was planned: `t by (a, b)`.
    LookedUp(String),
    /// They come in this order.
    InOrder(LexOrdering),
    NothingKnown,
}

impl Passing {
    /// Rows that were looked up as the text says.
    pub fn looked_up(found: Arc<dyn ExecutionPlan>, text: String) -> Passing {
        Passing::new(found, Says::LookedUp(text))
    }

    /// Rows that are asked for in this order.
    pub fn in_order(input: Arc<dyn ExecutionPlan>, order: LexOrdering) -> Passing {
        Passing::new(input, Says::InOrder(order))
    }

    /// Rows of whose order nothing is known.
    pub fn nothing_known(input: Arc<dyn ExecutionPlan>) -> Passing {
        Passing::new(input, Says::NothingKnown)
    }

    fn new(input: Arc<dyn ExecutionPlan>, says: Says) -> Passing {
        let properties = match &says {
            Says::LookedUp(_) | Says::InOrder(_) => input.properties().clone(),
            Says::NothingKnown => Arc::new(PlanProperties::new(
                EquivalenceProperties::new(input.schema()),
                input.output_partitioning().clone(),
                input.pipeline_behavior(),
                input.boundedness(),
            )),
        };
        Passing {
            input,
            says,
            properties,
        }
    }

    fn over(&self, mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let says = self.says.clone();
        Ok(Arc::new(Passing::new(inputs.swap_remove(0), says)))
    }
}

impl DisplayAs for Passing {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.says {
            Says::LookedUp(text) => write!(f, "Lookup: {text}"),
            Says::InOrder(_) | Says::NothingKnown => f.write_str(self.name()),
        }
    }
}

impl ExecutionPlan for Passing {
    fn name(&self) -> &str {
        match self.says {
            Says::LookedUp(_) => "Lookup",
            Says::InOrder(_) => "InOrder",
            Says::NothingKnown => "NothingKnown",
        }
    }

    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![match self.says {
            Says::InOrder(_) => Distribution::SinglePartition,
            Says::LookedUp(_) | Says::NothingKnown => Distribution::UnspecifiedDistribution,
        }]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![match &self.says {
            Says::InOrder(order) => Some(OrderingRequirements::from(order.clone())),
            Says::LookedUp(_) | Says::NothingKnown => None,
        }]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![!matches!(self.says, Says::NothingKnown)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(inputs[0].clone())
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
