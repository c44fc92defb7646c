"""Plain FastAPI under uvicorn (uvloop, httptools): one process, two threads, raw bytes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Request, Response
from net import PLACES, PORT, Net

app = FastAPI()
net = Net()
pool = ThreadPoolExecutor(PLACES)


@app.get("/ready")
async def ready() -> dict:
    return {}


@app.post("/predict")
async def predict(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(pool, net.of_bytes, await request.body())
    return Response(found, media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
