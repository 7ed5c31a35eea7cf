"""The rules for returned labels as a Great Expectations suite, built from the project's structures.

Hard rules send the work back to the reader; soft ones are flagged for review. Great Expectations takes seconds to
import, so this module imports it when it is used, once per batch, in an ephemeral context with analytics off.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.config.schema import Structure, Validate
from tasks.validate.flags import UNLIKELY

# Share of what draft or label mark that was changed, from which a kept draft looks like a new drawing.
MOSTLY = 0.5


@dataclass(frozen=True)
class Finding:
    """One broken rule of one return, in words for the reader."""

    rule: str
    measured: Any
    message: str


@dataclass(frozen=True)
class Verdict:
    """What validation says of one return; `ok` when no hard rule is broken."""

    assignment_id: str
    hard: tuple[Finding, ...]
    soft: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.hard


def validate_rows(
    rows: Sequence[dict[str, Any]], structures: Sequence[Structure], config: Validate
) -> tuple[list[Verdict], dict[str, Any]]:
    """Judge the rows of one batch.

    Returns
    -------
    verdicts in the order of the rows, and Great Expectations' own result as JSON without run ids and times.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd

    # This one logger sets its own level when imported, and would name a temporary directory in every round.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

    if not rows:
        return [], {"results": [], "success": True}
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
    table = pd.DataFrame(list(rows))
    batch = (
        context.data_sources.add_pandas("returns")
        .add_dataframe_asset("labels")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(gx.ExpectationSuite(name="returned labels"))
    for expectation in _suite(gx.expectations, structures, config):
        suite.add_expectation(expectation)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="returns", data=batch, suite=suite))
    outcome = definition.run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["assignment_id"]},
    )
    hard: dict[str, list[Finding]] = {}
    soft: dict[str, list[Finding]] = {}
    kept = []
    for result in outcome.results:
        meta = result.expectation_config.meta
        details = result.result or {}
        if result.exception_info and result.exception_info.get("raised_exception"):
            raise RuntimeError(f"the rule {meta['rule']} could not be evaluated")
        column = result.expectation_config.kwargs["column"]
        broken = details.get("unexpected_index_list") or []
        for item in broken:
            finding = Finding(meta["rule"], _plain(item[column]), meta["message"])
            (hard if meta["level"] == "hard" else soft).setdefault(item["assignment_id"], []).append(finding)
        kept.append(
            {
                "rule": meta["rule"],
                "level": meta["level"],
                "column": column,
                "success": bool(result.success),
                "checked": int(details.get("element_count", 0)),
                "broken": sorted(item["assignment_id"] for item in broken),
            }
        )
    verdicts = [
        Verdict(
            row["assignment_id"], tuple(hard.get(row["assignment_id"], ())), tuple(soft.get(row["assignment_id"], ()))
        )
        for row in rows
    ]
    return verdicts, {
        "results": sorted(kept, key=lambda r: (r["rule"], r["column"], r["checked"])),
        "success": bool(outcome.success),
    }


def _suite(rules: Any, structures: Sequence[Structure], config: Validate) -> list[Any]:
    def meta(level: str, rule: str, message: str) -> dict[str, str]:
        return {"level": level, "rule": rule, "message": message}

    true, between = rules.ExpectColumnValuesToBeInSet, rules.ExpectColumnValuesToBeBetween
    values = ", ".join(f"{s.value} = {s.name}" for s in structures)
    grid = (
        "The label is not on the image's grid. Export it on the grid of image.nii.gz, without resampling or cropping."
    )
    mirrored, broken = "The label is mirrored against the image.", "The label holds values that are no integers."
    suite = [
        true(column="flipped", value_set=[False], meta=meta("hard", "flipped", mirrored)),
        true(column="same_grid", value_set=[True], meta=meta("hard", "grid", grid)),
        true(column="integral", value_set=[True], meta=meta("hard", "not_integer", broken)),
        between(
            column="unknown_values", min_value=0, max_value=0,
            meta=meta("hard", "unknown_values", f"The label holds unknown values. Allowed: 0, {values}."),
        ),
        between(
            column="minutes", min_value=0, max_value=config.max_minutes,
            meta=meta("hard", "minutes", f"The minutes are not between 0 and {config.max_minutes:g}."),
        ),
        # A range lets missing values through. A workstation without a timer has no minutes to give; it is named.
        rules.ExpectColumnValuesToNotBeNull(
            column="minutes", row_condition=rules.row_conditions.Column("origin") != "imported",
            meta=meta("hard", "minutes", "The minutes are missing."),
        ),
        rules.ExpectColumnValuesToNotBeNull(
            column="minutes", row_condition=rules.row_conditions.Column("origin") == "imported",
            meta=meta("soft", "no_times", "It came without minutes, from a tool that takes none."),
        ),
        between(
            column="seconds", min_value=config.min_seconds,
            meta=meta("soft", "very_fast", f"Finished in under {config.min_seconds:g} s."),
        ),
        between(
            column="accept_seconds", min_value=config.fast_accept_seconds,
            meta=meta("soft", "fast_accept",
                      f"The draft was accepted unchanged in under {config.fast_accept_seconds:g} s."),
        ),
        between(
            column="corrected_voxels", min_value=0, strict_min=True,
            meta=meta("soft", "unchanged_correction", "Handed in as a correction, but nothing was changed."),
        ),
        between(
            column="accept_chance", min_value=UNLIKELY,
            meta=meta("soft", "accept_streak",
                      "In this round the reader accepts drafts unchanged far more often than the others."),
        ),
        between(
            column="changed_share", max_value=MOSTLY,
            meta=meta("soft", "mostly_redrawn",
                      f"More than {MOSTLY:.0%} of what draft and label mark was changed, yet the draft was kept."),
        ),
    ]  # fmt: skip
    for structure in structures:
        name = structure.name
        suite.append(
            between(
                column=f"{name}_lost_ml", max_value=0,
                meta=meta("soft", "structure_removed", f"The draft held {name}, the label holds none of it."),
            )
        )  # fmt: skip
        if structure.required:
            suite.append(
                between(
                    column=f"{name}_ml", min_value=0, strict_min=True,
                    meta=meta("hard", "required_empty", f"The required structure {name} is empty."),
                )
            )  # fmt: skip
        if structure.max_components:
            message = f"{name} has more than {structure.max_components} separate pieces."
            suite.append(
                between(
                    column=f"{name}_components", max_value=structure.max_components,
                    meta=meta("soft", "components", message),
                )
            )  # fmt: skip
        if structure.volume_ml:
            low, high = structure.volume_ml
            # An absent optional structure is no implausible volume: its row is let through by the row condition.
            suite.append(
                between(
                    column=f"{name}_ml", min_value=low, max_value=high,
                    row_condition=None if structure.required else rules.row_conditions.Column(f"{name}_ml") > 0,
                    meta=meta("soft", "volume", f"The volume of {name} is not between {low:g} and {high:g} ml."),
                )
            )  # fmt: skip
    return suite


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
