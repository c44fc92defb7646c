"""Settings of every process, from the environment (LESIONLENS_*) or a .env file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.bundle.providers import Execution, Provider


def _text(value: Any) -> Any:
    """A Path is as good as its text."""
    return str(value) if isinstance(value, Path) else value


class Settings(BaseSettings):
    """One class for all processes, so that two of them cannot disagree on a default."""

    model_config = SettingsConfigDict(
        env_prefix="LESIONLENS_", env_file=".env", extra="ignore", frozen=True
    )

    home: Path = Field(Path(".lesionlens"), description="State: ledger, blobs, sockets, logs.")
    bundle: Annotated[str | None, BeforeValidator(_text)] = Field(
        None,
        description="What to serve: a bundle's folder, lesionlens:<hash>, lesionlens:latest, or "
        "lesionlens:production, which a running service follows.",
    )
    store: Path | None = Field(
        None,
        validation_alias=AliasChoices("LESIONLENS_STORE", "BENTOML_HOME", "store"),
        description="Home of the BentoML model store; unset: bentoml in home.",
    )
    resident: int = Field(
        3,
        ge=1,
        description="Bundles whose weights are kept in memory: the one in production, "
        "and those that unfinished work still asks for.",
    )

    host: str = Field("127.0.0.1", description="Address that the front door listens on.")
    port: int = Field(3000, description="Port of the front door.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of gRPC (Open Inference Protocol); unset: the one after port, 0: none.",
    )
    shared_memory: bool = Field(
        False,
        description="Let clients on this host pass tensors through /dev/shm. They may then read "
        "and write every segment of the server's user.",
    )
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("LESIONLENS_REDIS_URL", "REDIS_URL", "redis_url"),
        description="A real Redis; unset: the embedded one. REDIS_URL is understood too.",
    )
    redis_port: int = Field(6390, description="Port of the embedded Redis.")
    inference_url: str | None = Field(None, description="Where workers reach OIP v2.")
    ledger_url: str | None = Field(None, description="SQLAlchemy URL; unset: SQLite in home.")
    blobs_url: str | None = Field(None, description="fsspec URL; unset: a folder in home.")

    max_body_mb: int = Field(256, description="Largest request body.")
    max_volume_mb: int = Field(1024, description="Largest volume once decompressed, a phase.")
    threads: int = Field(1, ge=1, description="Intra-op threads of one inference session.")
    sessions: int = Field(2, ge=1, description="Inference calls that run side by side.")
    precision: str = Field(
        "fp32",
        description="What answers a prediction that asks for no precision: fp32, or an accepted "
        "variant of the bundle (int8, openvino-fp32, openvino-bf16, openvino-int8).",
    )
    providers: Provider = Field(
        "cpu",
        description="Where onnxruntime runs fp32: cpu, cuda or tensorrt; the latter two need the "
        "package onnxruntime-gpu.",
    )
    gpu: int = Field(0, ge=0, description="Number of the GPU.")
    gpu_memory_mb: int = Field(
        0, ge=0, description="Most GPU memory that a session's arena takes; 0: no limit."
    )
    cuda_graphs: bool = Field(False, description="Replay a captured CUDA graph for batches of one.")
    queue: int = Field(32, ge=0, description="Inference requests that may wait; beyond: 503.")
    chunk_rows: int = Field(
        4,
        ge=1,
        description="Rows of one run of a graph. Long requests make way between runs: a short one "
        "waits for one at most.",
    )
    merge_rows: int = Field(
        1,
        ge=1,
        description="One-row classifications of different clients that may share a run; 1: none. "
        "On a CPU it gains nothing.",
    )
    merge_delay_ms: float = Field(
        0.0, ge=0, description="How long the first of them waits for the others."
    )
    bulk_queue: int = Field(
        1000, description="Bulk jobs that may wait (their lesions lie on disk); beyond: 429."
    )
    worker_processes: int = Field(1, description="Celery child processes.")
    job_seconds: int = Field(600, description="Hard limit of one explanation.")
    job_attempts: int = Field(5, description="Deliveries before a job is declared failed.")
    result_days: int = Field(7, description="Results are kept this long; later: 410.")

    @property
    def ledger(self) -> str:
        return self.ledger_url or f"sqlite:///{(self.home / 'ledger.sqlite').resolve()}"

    @property
    def blobs(self) -> str:
        return self.blobs_url or (self.home / "blobs").resolve().as_uri()

    @property
    def models(self) -> Path:
        """Folder of the model store that holds one folder a bundle, named by its hash."""
        return (self.store or self.home / "bentoml").resolve() / "models" / "lesionlens"

    @property
    def grpc(self) -> int | None:
        """Port of the gRPC server, or None where there is none."""
        return (self.port + 1 if self.grpc_port is None else self.grpc_port) or None

    @property
    def redis(self) -> str:
        return self.redis_url or f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def execution(self) -> Execution:
        """How onnxruntime runs a bundle's graphs. Built TensorRT engines are kept in home."""
        return Execution(
            threads=self.threads,
            provider=self.providers,
            device=self.gpu,
            memory_mb=self.gpu_memory_mb,
            graphs=self.cuda_graphs,
            engines=self.home / "engines" if self.providers == "tensorrt" else None,
        )

    @property
    def inference(self) -> str:
        """Base URL of the inference service as workers see it."""
        return self.inference_url or f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process."""
        values: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return {f"LESIONLENS_{k.upper()}": str(v) for k, v in values.items()}
