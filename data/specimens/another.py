# The same game in another hand: functions and globals, sprites drawn once, a loop in a loop.
import sys
from random import choice, randint

import pygame
from pygame.locals import *

pygame.init()
W, H = 640, 480
win = pygame.display.set_mode((W, H))
big, small = pygame.font.SysFont("arial", 40), pygame.font.SysFont("arial", 24)
timer = pygame.time.Clock()
NEW_PIPE = USEREVENT + 1
best = 0


def light():
    return tuple(randint(200, 255) for _ in range(3))


def make_bird():
    image = pygame.Surface((32, 32), SRCALPHA)
    color = tuple(randint(0, 90) for _ in range(3))
    shape = choice("sct")
    if shape == "s":
        image.fill(color)
    elif shape == "c":
        pygame.draw.circle(image, color, (16, 16), 16)
    else:
        pygame.draw.polygon(image, color, [(0, 0), (31, 16), (0, 31)])
    return image


def make_pipe():
    gap, top = randint(150, 190), randint(40, 200)
    color = choice([(0, 90, 20), (196, 164, 132), (70, 70, 75)])
    upper, lower = pygame.Surface((64, top)), pygame.Surface((64, 420 - top - gap))
    upper.fill(color)
    lower.fill(color)
    return [W, top + gap, upper, lower, False]


def show(text, font, **place):
    image = font.render(text, True, "black")
    win.blit(image, image.get_rect(**place))


def end():
    pygame.quit()
    sys.exit()


def wait_for_key(score):
    show("You lost", big, center=(W // 2, 150))
    show(f"Score {score}   High score {best}", small, center=(W // 2, 210))
    show("SPACE to restart, Q or ESC to leave", small, center=(W // 2, 250))
    pygame.display.update()
    while True:
        event = pygame.event.wait()
        if event.type == QUIT or event.type == KEYDOWN and event.key in (K_q, K_ESCAPE):
            end()
        if event.type == KEYDOWN and event.key == K_SPACE:
            return


def play(sky):
    global best
    bird, y, v = make_bird(), 200.0, 0.0
    land = pygame.Surface((W, 60))
    land.fill(choice([(101, 67, 33), (240, 200, 60)]))
    pipes, score = [make_pipe()], 0
    pygame.time.set_timer(NEW_PIPE, randint(1300, 1700))
    while True:
        seconds = timer.tick(60) / 1000
        for event in pygame.event.get():
            if event.type == QUIT or event.type == KEYDOWN and event.key in (K_q, K_ESCAPE):
                end()
            elif event.type == KEYDOWN and event.key == K_SPACE:
                v -= 420
                v = max(v, -420)
            elif event.type == NEW_PIPE:
                pipes.append(make_pipe())
                pygame.time.set_timer(NEW_PIPE, randint(1300, 1700))
        v += 1300 * seconds
        y += v * seconds
        box = pygame.Rect(100, int(y), 32, 32)
        win.fill(sky)
        hit = y < 0 or box.bottom > 420
        for pipe in pipes:
            pipe[0] -= 170 * seconds
            upper = win.blit(pipe[2], (int(pipe[0]), 0))
            lower = win.blit(pipe[3], (int(pipe[0]), pipe[1]))
            hit = hit or box.colliderect(upper) or box.colliderect(lower)
            if not pipe[4] and pipe[0] + 64 < 100:
                pipe[4] = True
                score += 1
        pipes = [pipe for pipe in pipes if pipe[0] > -64]
        win.blit(land, (0, 420))
        win.blit(bird, box)
        show(str(score), big, topright=(W - 12, 8))
        if hit:
            best = max(best, score)
            wait_for_key(score)
            return
        pygame.display.update()


sky = (176, 224, 230)
while True:
    play(sky)
    sky = light()
