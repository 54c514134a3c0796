"""Pages as text: what is read, what is left out, and pages made to hurt."""

import pytest

from agentrt.index.confined import Parsers, Unreadable
from agentrt.index.html import Readable, readable
from agentrt.index.parse_html import parse


def text(html: str, base: str | None = None) -> str:
    return str(parse(html.encode(), base)["text"])


def test_a_page_is_read() -> None:
    """In a process of its own; lone surrogates, which no encoding has, are replaced."""
    assert readable("<title> A\n page </title><p>It's <b>so</b>.\ud800") == Readable("A page", "It's so.?")


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h2>On <i>eels</i></h2><p>They\n swim.", "## On eels\n\nThey swim."),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>d", "- a\n  - b\n- c\n\nd"),
        ("<table><tr><th>x<th>y<tr><td><p>1</p><p>2</p><td></table>", "x | y\n1 2 |"),
        ("<pre>  if x:\n\n    y  </pre>", "```\n  if x:\n\n    y  \n```"),
        ("<pre>```</pre>", "````\n```\n````"),
        ("one<br>two&nbsp;&amp;&lt;three", "one\ntwo\xa0&<three"),
        ("<img src=x alt='a map'>", "a map"),
        ("<div>a</div>b<section>c</section>", "a\n\nb\n\nc"),
        ("", ""),
    ],
)
def test_structure_is_kept(html: str, expected: str) -> None:
    """Headings, lists, tables, code and paragraphs are written as Markdown has them."""
    assert text(html) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("<td></td><td>74</td>", "| 74"),
        ("<td>Zura<td><td>74", "Zura | | 74"),
        ("<th><img><th>x<th>", "| x |"),
        ("<td> <td>", ""),
    ],
)
def test_cells_stay_in_their_columns(row: str, expected: str) -> None:
    """Empty ones, too; a row of none but these is none."""
    assert text(f"<table><tr><td>a<td>b</tr><tr>{row}</tr></table>") == f"a | b\n{expected}".strip()


@pytest.mark.parametrize(
    "style",
    [
        "opacity:0.5",
        "opacity:1",
        "font-size:0.8em",
        "left:-9999px",
        "text-indent:-1em",
        "margin-left:-20px",
        "top:0",
        ":;",
    ],
)
def test_what_is_styled_is_read(style: str) -> None:
    """Where it can be seen."""
    assert text(f"<p style='{style}'>yes</p>") == "yes"


def test_fonts_without_a_size_hide_what_has_none_of_its_own() -> None:
    """Mails are laid out so: the cell around has none, so that no space is between the blocks in it."""
    assert text("<div style='font-size:0px'>no<p style='font-size:13px'>yes <b>too</b></p>no</div>") == "yes too"


@pytest.mark.parametrize(
    "unread",
    [
        "<script>no</script>",
        "<style>no</style>",
        "<!-- no -->",
        "<template><p>no</template>",
        "<noscript>no</noscript>",
        "<p hidden>no</p>",
        "<p aria-hidden=true>no</p>",
        "<p style='DISPLAY :none'>no</p>",
        "<p style='Opacity:/* ; */0.0 !important'>no</p>",
        "<p style='color:red;visibility: hidden;'>no</p>",
        "<p style='position:absolute; left: -9999px'>no</p>",
        "<p style='text-indent:-999em'>no</p>",
        "<p style='font-size:0'>no<b>no</b></p>",
        "<nav>no</nav>",
        "<header>no</header>",
        "<footer>no</footer>",
        "<div role=banner>no</div>",
        "<button>no</button>",
        "<svg><text>no</text></svg>",
    ],
)
def test_what_no_reader_sees_is_left_out(unread: str) -> None:
    """Scripts, comments, hidden elements, and what stands around the text."""
    assert text(f"<p>yes</p>{unread}<p>too</p>") == "yes\n\ntoo"


def test_the_main_part_is_read_where_the_page_marks_one() -> None:
    """An article's own header belongs to it; two articles are a list of them, and all of the page is read."""
    assert text("<div>ad</div><main><header><h1>T</h1></header>x</main>") == "# T\n\nx"
    assert text("<article>a</article><article>b</article>c") == "a\n\nb\n\nc"


def test_a_page_of_navigation_alone_is_read_whole() -> None:
    """Nothing is lost because of where it stands."""
    assert text("<nav>home</nav><footer>us</footer>") == "home\n\nus"


def test_links_are_written_where_the_page_is_known() -> None:
    """With the address they lead to; what leads nowhere is text."""
    html = "<p><a href='../b?c=1'>see <b>b</b></a>, <a href='#top'>up</a>, <a>no</a>, <a href='http://[x'>odd</a></p>"
    assert text(html, "http://e.org/a/") == "[see b](http://e.org/b?c=1), up, no, [odd](http://[x)"
    assert text(html) == "see b, up, no, odd"


@pytest.mark.parametrize(
    "html", ["<b><p>" * 2000 + "x", "<table><tr><td>" * 1000 + "x", "&amp;" * 10_000, "<" * 10_000]
)
def test_deep_and_odd_pages_are_read(html: str) -> None:
    """No depth of nesting is too deep for the walk."""
    assert text(html)


def test_a_page_that_takes_too_long_is_given_up() -> None:
    """And the next is read, in a new process; 100,000 elements within each other take a minute."""
    with Parsers(seconds=0.2) as parsers:
        with pytest.raises(Unreadable, match=r"it takes more than 0.2 s"):
            readable("<div>" * 100_000, parsers=parsers)
        parsers.seconds = 20
        assert readable("<p>fine", parsers=parsers).text == "fine"


def test_a_page_that_takes_too_much_memory_is_given_up() -> None:
    """Formatting is repeated in every paragraph: a page of 150 kB would take gigabytes."""
    html = "<p>" + "".join(f"<font a={i}>" for i in range(5000)) + "<p>x" * 20_000
    with Parsers(memory=150_000_000) as parsers, pytest.raises(Unreadable):
        readable(html, parsers=parsers)
