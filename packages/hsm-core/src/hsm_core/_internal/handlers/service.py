# SPDX-License-Identifier: MIT
"""Status, algorithms, self-test, store, and nodes of a cluster."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core.__about__ import __version__
from hsm_core._internal.handlers.base import (
    Answer,
    ClusterOperations,
    Handler,
    HandlerDependencies,
    Speed,
    answers,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.power_up import own_self_test
from hsm_core._internal.time.clock import instant
from hsm_core.algorithms import ALGORITHMS, Cost, KeyUsage, spec
from hsm_core.errors import HSMError, UnsupportedOperationError
from hsm_core.model import KeyFilter
from hsm_core.protocols import IndexQuery


@handles(ops.Status)
class StatusHandler(Handler[ops.Status, ops.HSMStatus]):
    """Tell the health of the HSM."""

    def perform(self, context: RequestContext[ops.Status], /) -> Answer[ops.HSMStatus]:
        """Collect the status without new measurements."""
        services = self._services
        now, algorithms = services.clock.now(), services.crypto.statuses()
        audit, store = self._audit_status(), services.store_status()
        tampered = len(services.inventory.tampered)
        policy, approvals = services.policy, services.approval_status()
        cluster = services.cluster.status() if services.cluster else None
        impaired = (
            bool(tampered or services.store_refused or policy.finding)
            or services.schedule.status.held > 0
            or audit.state != "ok"
            or approvals.findings > 0
            or not approvals.available
            or (cluster is not None and cluster.policies > 1)
            or any(row.status == "stopped" for row in algorithms)
        )
        keys = self._count_keys() if store.available else None
        is_cut_off = cluster is not None and not cluster.decides
        if not audit.available or keys is None or is_cut_off:
            state = "error"
        elif store.locked:
            state = "locked"
        else:
            state = "degraded" if impaired else "operational"
        return Answer(
            ops.HSMStatus(
                state=state,
                version=__version__,
                started_at=instant(services.started_at),
                uptime_seconds=max(0, now - services.started_at) // 1_000_000,
                keys=keys or 0,
                tampered_keys=tampered,
                audit=audit,
                algorithms=algorithms,
                store=store,
                schedules=services.schedule.status,
                policy=ops.PolicyStatus(
                    policy=policy.policy_hash(),
                    source=policy.source,
                    current=not policy.problem,
                    failures=policy.failures,
                ),
                approvals=approvals,
                retention=_counts(services.retention_status()),
                key_cache=services.inventory.materials.opened,
                cluster=cluster or ops.ClusterStatus(),
            )
        )

    def _count_keys(self) -> int | None:
        """Return how many there are; None if the store does not tell."""
        query = IndexQuery(filter=KeyFilter(), limit=0)
        try:
            return self._services.inventory.store.find(query).total
        except HSMError:
            return None

    def _audit_status(self) -> ops.AuditStatus:
        audit = self._services.audit
        head, health = audit.head(), audit.health
        return ops.AuditStatus(
            available=audit.available,
            sync=self._services.settings.audit_sync.value,
            log_id=audit.log_id,
            head_seq=head.seq,
            head_hash=head.leaf_hash,
            state=health.state,
            cause=health.cause,
            failures=health.failures,
            resumes=health.resumes,
            first_seq=audit.first_seq,
            syncs=health.syncs,
        )


def _counts(report: ops.RetentionReport) -> ops.RetentionCounts:
    ledger = report.ledger
    is_whole = ledger is None or (ledger.available and not ledger.problem)
    return ops.RetentionCounts(
        enabled=report.enabled,
        healthy=is_whole and not report.problem and not report.paused,
        queue=report.queue,
        scheduled_total=report.scheduled_total,
        completed_total=report.completed_total,
    )


@answers(ops.DescribeCaller)
def describe_caller(
    services: HandlerDependencies, context: RequestContext[ops.DescribeCaller]
) -> ops.CallerInfo:
    """Return the authenticated caller."""
    caller = context.caller
    return ops.CallerInfo(
        principal=caller.principal,
        roles=tuple(sorted(caller.roles)),
        credential_id=caller.credential_id,
        certificate_subject=caller.certificate_subject,
        source_address=caller.source_address,
    )


@answers(ops.ListAlgorithms)
def list_algorithms(
    services: HandlerDependencies, context: RequestContext[ops.ListAlgorithms]
) -> ops.AlgorithmList:
    """Join the table with the registry's last test results."""
    return ops.AlgorithmList(items=tuple(map(_describe, services.crypto.statuses())))


@handles(ops.SelfTest)
class SelfTestHandler(Handler[ops.SelfTest, ops.SelfTestReport]):
    """
    Run the self-tests, in slices: one for each algorithm.

    Between them the thread sleeps as long as it computed, up to 0.1 s. It is none of
    those that slow operations wait for.
    """

    speed = Speed.POOLED

    def perform(
        self, context: RequestContext[ops.SelfTest], /
    ) -> Answer[ops.SelfTestReport]:
        """
        Run all; an algorithm that fails gives no output any more.

        Raises:
            SelfTestFailedError: What protects the store fails.
            EntropyUnavailableError: The random source repeats itself.
            OverloadedError: They are being run already.
            UnavailableError: The HSM is being closed.
        """
        own_self_test(self._services.entropy)
        results = self._services.crypto.self_test(self._services.closing)
        passed = all(result.passed for result in results)
        return Answer(ops.SelfTestReport(passed=passed, results=results))

    def weight(self, operation: ops.SelfTest, /) -> int:
        """Return the sum of its tests; a slow one takes about three signatures."""
        return sum(
            Speed.POOLED if row.use_cost is Cost.QUICK else 3 * Speed.SLOW
            for row in ALGORITHMS.values()
        )


def _describe(status: ops.AlgorithmStatus) -> ops.AlgorithmInfo:
    row = spec(status.algorithm)
    return ops.AlgorithmInfo(
        algorithm=row.algorithm,
        family=row.family.value,
        standard=row.standard,
        category=row.category,
        strength_bits=row.strength_bits,
        usages=tuple(usage for usage in KeyUsage if usage in row.usages),
        status=status.status,
        public_key_bytes=row.public_bytes,
        private_key_bytes=row.private_bytes or row.key_bytes,
        signature_bytes=row.signature_bytes,
        ciphertext_bytes=row.ciphertext_bytes,
        draft=row.draft,
        provider=status.provider,
        provider_version=status.provider_version,
        hint=status.hint,
    )


@answers(ops.VerifyStore, Speed.SLOW)
def verify_store(
    services: HandlerDependencies, context: RequestContext[ops.VerifyStore]
) -> ops.StoreVerification:
    """Check the document and the blobs of every key."""
    return services.verify_store(services.closing)


@answers(ops.BackUpStores, Speed.SLOW)
def back_up_stores(
    services: HandlerDependencies, context: RequestContext[ops.BackUpStores]
) -> ops.BackUp:
    """Copy the databases while no key is changed."""
    return services.back_up()


@answers(ops.RecoverStore, Speed.SLOW)
def recover_store(
    services: HandlerDependencies, context: RequestContext[ops.RecoverStore]
) -> ops.Recovered:
    """Accept the store as it is: record what that means for each key, and unlock."""
    return services.recover_store(context.operation.reason)


@answers(ops.RecoverKey, Speed.SLOW)
def recover_key(
    services: HandlerDependencies, context: RequestContext[ops.RecoverKey]
) -> ops.Recovered:
    """Accept one key as it is, and record what that means for it."""
    asked = context.operation
    return services.recover_key(asked.key_id, asked.reason)


@answers(ops.ListNodes, Speed.POOLED)
def list_nodes(
    services: HandlerDependencies, context: RequestContext[ops.ListNodes]
) -> ops.NodeList:
    """Return all nodes."""
    return _cluster_of(services).nodes()


@answers(ops.RetireNode, Speed.POOLED)
def retire_node(
    services: HandlerDependencies, context: RequestContext[ops.RetireNode]
) -> ops.NodeList:
    """Remove a stopped node, and return the others."""
    cluster = _cluster_of(services)
    cluster.retire(context.operation.node)
    return cluster.nodes()


def _cluster_of(services: HandlerDependencies) -> ClusterOperations:
    if services.cluster is None:
        raise UnsupportedOperationError(
            "This HSM has no nodes: its stores are not in a PostgreSQL database."
        )
    return services.cluster
