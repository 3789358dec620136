"""Who may use the page: the login, and the command that starts it."""

import asyncio
import re
import runpy
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from packaging.requirements import Requirement
from serving import routes_of, save_coder, served

from modeling_icd.space import access, server
from modeling_icd.space.access import FORGOTTEN_SECONDS, FREE_FAILURES, Login, read_accounts
from modeling_icd.space.cli import main
from modeling_icd.space.coding import Coder


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory) -> str:
    return save_coder(backbone, tmp_path_factory.mktemp("coder"))


def test_with_accounts_everything_but_the_login_is_closed(folder):
    with served([Coder(folder)], {"anna": "right: \u00e4"}) as (_, address, server):
        routes = routes_of(server)
        assert ("POST", "/gradio_api/call/{api_name}") in routes and ("POST", "/api/document") in routes
        with httpx.Client(base_url=address) as client:
            for method, path in routes:
                if path not in ("/login", "/logout") and (method, path) != ("GET", "/"):
                    answer = client.request(method, re.sub(r"\{[^}]*\}", "x", path), content=b"{}")
                    assert answer.status_code == 401, (method, path)
        answer = httpx.get(address)
        assert (answer.status_code, answer.headers["location"]) == (303, "login")
        assert "<form" in httpx.get(f"{address}/login").text
        with httpx.Client(base_url=address) as client:
            for wrong in ({"user": "anna", "password": "wrong"}, {"user": "x", "password": ""}, {}):
                answer = client.post("/login", data=wrong)
                assert answer.status_code == 401 and "User or password is wrong." in answer.text
            answer = client.post("/login", data={"user": "anna", "password": "right: \u00e4"})
            assert (answer.status_code, answer.headers["location"]) == (303, "./")
            cookie = answer.headers["set-cookie"]
            assert "HttpOnly" in cookie and "SameSite=strict" in cookie
            assert client.get("/api/about").status_code == 200
            token = cookie.partition("=")[2].partition(";")[0]
            assert httpx.get(f"{address}/api/about", cookies={"modeling-icd-session": token + "x"}).status_code == 401
            answer = client.post("/logout")
            assert (answer.status_code, answer.headers["location"]) == (303, "login")
        assert httpx.get(f"{address}/api/about", cookies={"modeling-icd-session": token}).status_code == 401
        for _ in range(FREE_FAILURES + 1):
            answer = httpx.post(f"{address}/login", data={"user": "anna", "password": "no"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert "Too many wrong attempts from your address: wait 2 seconds, then try again." in answer.text


def test_wrong_passwords_make_an_address_wait_for_a_short_time_that_grows_and_no_other_address(monkeypatch):
    login, now = Login({"anna": "right"}), [1000.0]
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(access, "FAILURE_DELAY", 0)

    def attempt(password: str, host: str = "10.0.0.1") -> tuple[int, str]:
        async def receive():
            return {"type": "http.request", "body": f"user=anna&password={password}".encode()}

        answer = asyncio.run(login._log_in({"type": "http", "scheme": "http", "client": (host, 1)}, receive))
        return answer.status_code, answer.headers.get("retry-after", "")

    assert [attempt("wrong") for _ in range(FREE_FAILURES)] == [(401, "")] * FREE_FAILURES
    for seconds in (2, 4, 8, 16, 32, 64, 120, 120):
        assert attempt("wrong") == (429, str(seconds))
        assert attempt("right") == (429, str(seconds))  # which is not looked at, and does not make it longer
        assert attempt("right", "10.0.0.2") == (303, "")
        now[0] += seconds - 0.5
        assert attempt("right") == (429, "1")
        now[0] += 0.5
    assert attempt("right") == (303, "")
    assert attempt("wrong") == (401, "")  # and all is forgotten
    for _ in range(FREE_FAILURES + 1):
        attempt("wrong", "10.0.0.3")
    now[0] += FORGOTTEN_SECONDS
    assert attempt("wrong", "10.0.0.3") == (401, "")
    assert len(login._failures) == 1


def test_guesses_sent_at_once_are_no_more_than_guesses_one_by_one():
    login, compared = Login({"anna": "right"}), []
    is_right = login._is_right
    login._is_right = lambda user, password: (compared.append(password), is_right(user, password))[1]

    async def attempt(password: str) -> int:
        async def receive():
            await asyncio.sleep(0.01)  # all requests are there before the first body is
            return {"type": "http.request", "body": f"user=anna&password={password}".encode()}

        scope = {"type": "http", "scheme": "http", "client": ("10.0.0.1", 1)}
        return (await login._log_in(scope, receive)).status_code

    async def attempts() -> list[int]:
        return await asyncio.gather(*map(attempt, [*map(str, range(50)), "right"]))

    statuses = asyncio.run(attempts())
    assert len(compared) == FREE_FAILURES + 1 and "right" not in compared
    assert statuses == [401] * FREE_FAILURES + [429] * (51 - FREE_FAILURES)


def test_accounts_from_the_command_line_or_a_file(tmp_path):
    assert read_accounts("anna:a:b") == {"anna": "a:b"}
    file = tmp_path / "accounts"
    file.write_text("anna:x\n\nben:y\n")
    assert read_accounts(str(file)) == {"anna": "x", "ben": "y"}
    for wrong in ("anna", ":x", "anna:", "a" * 5000):
        with pytest.raises(ValueError, match=r"^--auth must be USER:PASSWORD"):
            read_accounts(wrong)
    file.write_text("anna:x\nSECRET\n")
    with pytest.raises(ValueError, match="line 2 must be USER:PASSWORD") as error:
        read_accounts(str(file))
    assert "SECRET" not in str(error.value)
    file.write_bytes(b"anna:\xff\n")
    with pytest.raises(ValueError, match="accounts is not UTF-8 text: write a line USER:PASSWORD"):
        read_accounts(str(file))


# The command


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a", "b", "c"], "3 models are named: the page compares two at most."),
        (["a", "--port", "0"], "`--port` must be a number from 1 to 65535, got 0."),
        (["a", "--max_waiting", "-1"], "`--max_waiting` must be at least 0, got -1."),
        (["a", "--auth", "anna"], "--auth must be USER:PASSWORD"),
        (
            ["a", "--auth", "nosuch.txt"],
            "nosuch.txt is not a file: --auth takes the path of a text file with a line USER:",
        ),
        (["a", "--auth", "/etc"], "/etc is not a file: --auth takes"),
        (["/nowhere/model"], "/nowhere/model is not a folder: is the path right?"),
    ],
)
def test_wrong_options_are_one_message(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(server, "check_address", lambda host, port: None)  # something else may be there
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_without_the_extra_one_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["a"]) == 2
    expected = 'error: The page needs packages that are not installed (gradio): pip install "modeling-icd[space]"\n'
    assert capsys.readouterr().err == expected


def test_a_page_that_others_reach_without_a_password_is_warned_of(capsys, monkeypatch):
    monkeypatch.setattr(server, "check_address", lambda host, port: None)
    assert main(["/nowhere/model", "--host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err.startswith("warning: with --host 0.0.0.0 others can reach the page")


def test_a_port_that_is_taken_is_one_message_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["/nowhere/model", "--port", str(port)]) == 2
    assert f"error: The page cannot be at port {port} of 127.0.0.1: the port is taken" in capsys.readouterr().err
    assert main(["/nowhere/model", "--host", "203.0.113.7", "--auth", "anna:x"]) == 2
    assert "error: The page cannot be at port 7860 of 203.0.113.7" in capsys.readouterr().err


def test_the_script_of_the_space_starts_the_page_with_the_models_that_its_variable_names(monkeypatch, capsys):
    metadata = (ROOT / "space" / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert "sdk: gradio" in metadata and "app_file: app.py" in metadata
    monkeypatch.setenv("ICD_MODEL", "a b c")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "space" / "app.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: 3 models are named: the page compares two at most."


def test_the_wheel_that_the_space_asks_for_is_the_one_that_its_readme_builds(tmp_path):
    """And it can be installed with what is here, without an index."""
    readme = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
    requirement = Requirement((ROOT / "space" / "requirements.txt").read_text().strip())
    assert (requirement.name, requirement.extras) == ("modeling-icd", {"space"})
    assert requirement.url.startswith("https://huggingface.co/spaces/OWNER/NAME/resolve/main/")
    command = re.search(r"`(pip wheel --no-deps -w space \.)`", readme)[1].split()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-index"]
    place = [str(tmp_path) if word == "space" else word for word in command[1:]]
    subprocess.run([*pip, *place, *offline], cwd=ROOT, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == requirement.url.rpartition("/")[2] and wheel.name in readme
    install = [*pip, "install", "--dry-run", "--no-index", "--no-deps", f"{wheel}[space]"]
    assert subprocess.run(install, capture_output=True, timeout=120).returncode == 0
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    assert {"modeling_icd/space/lay_terms.yaml", "modeling_icd/space/static/index.html"} <= names
