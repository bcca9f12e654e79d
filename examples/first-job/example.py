"""A job queue in one file: what a job is given, what it does, how it is started, what it returned."""

from pydantic import BaseModel

from processor import App, Context

app = App("first-job")


class Greeting(BaseModel):
    name: str
    times: int = 1


@app.job("greet", payload=Greeting)
def greet(ctx: Context, p: Greeting) -> list[str]:
    ctx.log.info("greeting.started", extra={"times": p.times})
    return [f"Hello, {p.name}!"] * p.times


if __name__ == "__main__":
    handle = greet.enqueue(Greeting(name="world", times=2))
    print("enqueued", handle.id)
    print(handle.result(timeout="30s"))
